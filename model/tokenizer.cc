#include "model/tokenizer.h"

#include <algorithm>
#include <array>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "model/bpe.h"
#include "model/pretokenizer.h"
#include "util/logging.h"
#include "util/status_macros.h"

namespace tern {
namespace {

constexpr char kModelKey[] = "tokenizer.ggml.model";
constexpr char kPreKey[] = "tokenizer.ggml.pre";
constexpr char kTokensKey[] = "tokenizer.ggml.tokens";
constexpr char kTypesKey[] = "tokenizer.ggml.token_type";
constexpr char kMergesKey[] = "tokenizer.ggml.merges";
constexpr char kBosKey[] = "tokenizer.ggml.bos_token_id";
constexpr char kEosKey[] = "tokenizer.ggml.eos_token_id";
constexpr char kEotKey[] = "tokenizer.ggml.eot_token_id";
constexpr char kAddBosKey[] = "tokenizer.ggml.add_bos_token";
constexpr char kAddEosKey[] = "tokenizer.ggml.add_eos_token";

// Of Llama 3, whose files do not always say which split they want.
constexpr int kLlama3VocabSize = 128256;
constexpr int kLlama3Bos = 128000;

// Far above any request; keeps every count here within 31 bits.
constexpr size_t kTextBytesMax = size_t{1} << 28;

enum TokenType : uint8_t {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUserDefined = 4,
  kUnused = 5,
};

// Byte-level BPE spells bytes as characters that can be seen: a byte that is a
// printable character of Latin-1 as itself, the others, in order, as U+0100 and
// up.
constexpr int kAlphabetEnd = 256 + 68;

std::array<int16_t, kAlphabetEnd> BytesOfAlphabet() {
  std::array<int16_t, kAlphabetEnd> bytes;
  bytes.fill(-1);
  int next = 256;
  for (int byte = 0; byte < 256; ++byte) {
    const bool is_printable = (byte >= 33 && byte <= 126) ||
                              (byte >= 161 && byte <= 172) || byte >= 174;
    bytes[is_printable ? byte : next++] = static_cast<int16_t>(byte);
  }
  return bytes;
}

// Appends the bytes that `spelling` stands for. False when it has a character
// outside the alphabet.
bool AppendSpelledBytes(absl::string_view spelling, std::string* out) {
  static const std::array<int16_t, kAlphabetEnd> kBytes = BytesOfAlphabet();
  for (size_t i = 0; i < spelling.size(); ++i) {
    int code = static_cast<uint8_t>(spelling[i]);
    if (code >= 0x80) {
      // Two bytes of UTF-8 reach U+07FF; the alphabet ends before that.
      if (code < 0xc2 || code > 0xdf || i + 1 == spelling.size()) return false;
      const int second = static_cast<uint8_t>(spelling[++i]);
      if ((second & 0xc0) != 0x80) return false;
      code = (code & 0x1f) << 6 | (second & 0x3f);
    }
    if (code >= kAlphabetEnd || kBytes[code] < 0) return false;
    out->push_back(static_cast<char>(kBytes[code]));
  }
  return true;
}

// A token that is recognised by its spelling, before any split.
struct AddedToken {
  absl::string_view spelling;
  TokenId id;
  bool is_control;  // recognised on request only
};

// Absent keys have id -1.
absl::StatusOr<TokenId> ReadTokenId(const GgufReader& file,
                                    absl::string_view key, int vocab_size) {
  if (!file.HasKey(key)) return -1;
  ASSIGN_OR_RETURN(const int64_t id, file.GetInt(key));
  if (id < 0 || id >= vocab_size) {
    return absl::InvalidArgumentError(absl::StrCat(
        key, " is ", id, "; the vocabulary has ids 0 to ", vocab_size - 1));
  }
  return static_cast<TokenId>(id);
}

absl::Status CheckKind(const GgufReader& file,
                       absl::Span<const absl::string_view> tokens) {
  ASSIGN_OR_RETURN(const absl::string_view model, file.GetString(kModelKey));
  if (model != "gpt2") {
    return absl::UnimplementedError(
        absl::StrCat(kModelKey, " is '", model,
                     "'; Tern reads byte-level BPE, which is called 'gpt2'"));
  }
  if (!file.HasKey(kPreKey)) {
    if (tokens.size() == kLlama3VocabSize &&
        tokens[kLlama3Bos] == "<|begin_of_text|>") {
      return absl::OkStatus();
    }
    return absl::UnimplementedError(absl::StrCat(
        "the file has no ", kPreKey,
        " and its vocabulary is not that of Llama 3; Tern knows the splits "
        "llama-bpe, llama3 and llama-v3"));
  }
  ASSIGN_OR_RETURN(const absl::string_view pre, file.GetString(kPreKey));
  if (pre != "llama-bpe" && pre != "llama3" && pre != "llama-v3") {
    return absl::UnimplementedError(absl::StrCat(
        kPreKey, " is '", pre,
        "'; Tern knows the splits llama-bpe, llama3 and llama-v3"));
  }
  return absl::OkStatus();
}

}  // namespace

struct Tokenizer::State {
  // Bytes of all tokens, and where each begins; one more offset ends the last.
  std::string bytes;
  std::vector<size_t> offsets;
  std::vector<uint8_t> types;  // TokenType
  // What text can become: normal and user-defined tokens. Keys lie in `bytes`.
  absl::flat_hash_map<absl::string_view, TokenId> ids;
  std::array<TokenId, 256> byte_ids;
  std::vector<AddedToken> added;         // by spelling, then by id
  std::array<bool, 256> begins_added{};  // whether one starts with this byte
  bool has_user_defined = false;
  BpeMerges merges;
  Pretokenizer pretokenizer;
  TokenId bos = -1;
  bool adds_bos = false;
  std::vector<TokenId> end_ids;

  absl::string_view BytesOf(TokenId id) const {
    return absl::string_view(bytes).substr(offsets[id],
                                           offsets[id + 1] - offsets[id]);
  }

  absl::Status ReadTokens(const GgufReader& file,
                          absl::Span<const absl::string_view> tokens);
  absl::Status ReadMerges(const GgufReader& file);
  absl::Status ReadSpecialIds(const GgufReader& file);

  const AddedToken* MatchAdded(absl::string_view text,
                               bool parse_special) const;
  absl::Status EncodePlain(absl::string_view text, std::vector<TokenId>* ids,
                           BpeMerges::Scratch* scratch) const;
};

absl::Status Tokenizer::State::ReadTokens(
    const GgufReader& file, absl::Span<const absl::string_view> tokens) {
  ASSIGN_OR_RETURN(const std::vector<int32_t> type_list,
                   file.GetIntArray(kTypesKey));
  if (type_list.size() != tokens.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat(kTypesKey, " has ", type_list.size(), " entries; ",
                     kTokensKey, " has ", tokens.size()));
  }
  size_t spelling_bytes = 0;
  for (absl::string_view token : tokens) spelling_bytes += token.size();
  bytes.reserve(spelling_bytes);
  offsets.reserve(tokens.size() + 1);
  types.reserve(tokens.size());
  for (size_t id = 0; id < tokens.size(); ++id) {
    offsets.push_back(bytes.size());
    const int32_t type = type_list[id];
    if (type < kNormal || type > kUnused) {
      return absl::InvalidArgumentError(
          absl::StrCat(kTypesKey, " of token ", id, " is ", type,
                       "; byte-level BPE has the types 1 to 5"));
    }
    types.push_back(static_cast<uint8_t>(type));
    if (type == kNormal) {
      if (!AppendSpelledBytes(tokens[id], &bytes)) {
        return absl::InvalidArgumentError(
            absl::StrCat(kTokensKey, " has a character at token ", id,
                         " that byte-level BPE does not spell bytes with"));
      }
    } else {
      // Others are spelled as they are; what they stand for becomes text.
      if (FindInvalidUtf8(tokens[id]) != absl::string_view::npos) {
        return absl::InvalidArgumentError(
            absl::StrCat(kTokensKey, " is not UTF-8 at token ", id));
      }
      bytes.append(tokens[id].data(), tokens[id].size());
    }
  }
  offsets.push_back(bytes.size());

  // From here on `bytes` stays where it is.
  ids.reserve(tokens.size());
  byte_ids.fill(-1);
  for (TokenId id = 0; id < static_cast<TokenId>(tokens.size()); ++id) {
    const absl::string_view token = BytesOf(id);
    if (token.empty()) continue;
    if (types[id] == kNormal) {
      if (ids.emplace(token, id).second && token.size() == 1) {
        byte_ids[static_cast<uint8_t>(token[0])] = id;
      }
    } else if (types[id] == kControl || types[id] == kUserDefined) {
      added.push_back({token, id, types[id] == kControl});
      begins_added[static_cast<uint8_t>(token[0])] = true;
      has_user_defined |= types[id] == kUserDefined;
    }
  }
  for (int byte = 0; byte < 256; ++byte) {
    if (byte_ids[byte] < 0) {
      return absl::InvalidArgumentError(
          absl::StrCat(kTokensKey, " has no token for the byte ", byte,
                       "; byte-level BPE needs one for each of the 256"));
    }
  }
  std::sort(
      added.begin(), added.end(), [](const AddedToken& a, const AddedToken& b) {
        return a.spelling != b.spelling ? a.spelling < b.spelling : a.id < b.id;
      });
  return absl::OkStatus();
}

absl::Status Tokenizer::State::ReadMerges(const GgufReader& file) {
  ASSIGN_OR_RETURN(const std::vector<absl::string_view> list,
                   file.GetStringArray(kMergesKey));
  merges.Reserve(list.size());
  std::string joined;
  for (size_t rank = 0; rank < list.size(); ++rank) {
    const absl::string_view merge = list[rank];
    const size_t space = merge.find(' ', 1);
    joined.clear();
    size_t left_bytes = 0;
    bool is_known = space != absl::string_view::npos &&
                    AppendSpelledBytes(merge.substr(0, space), &joined);
    if (is_known) {
      left_bytes = joined.size();
      is_known = AppendSpelledBytes(merge.substr(space + 1), &joined);
    }
    if (is_known) {
      const absl::string_view whole = joined;
      const auto left = ids.find(whole.substr(0, left_bytes));
      const auto right = ids.find(whole.substr(left_bytes));
      const auto both = ids.find(whole);
      is_known = left != ids.end() && right != ids.end() && both != ids.end();
      if (is_known) merges.Add(left->second, right->second, both->second);
    }
    if (!is_known) {
      return absl::InvalidArgumentError(absl::StrCat(
          kMergesKey, " has an entry ", rank,
          " that is not two tokens, one space between them, which together "
          "are a token"));
    }
  }
  return absl::OkStatus();
}

absl::Status Tokenizer::State::ReadSpecialIds(const GgufReader& file) {
  const int vocab_size = static_cast<int>(types.size());
  // Not used, but a file that gets them wrong is not to be trusted.
  for (const char* key :
       {"tokenizer.ggml.unknown_token_id", "tokenizer.ggml.padding_token_id"}) {
    RETURN_IF_ERROR(ReadTokenId(file, key, vocab_size).status());
  }
  ASSIGN_OR_RETURN(bos, ReadTokenId(file, kBosKey, vocab_size));
  ASSIGN_OR_RETURN(const TokenId eos, ReadTokenId(file, kEosKey, vocab_size));
  ASSIGN_OR_RETURN(const TokenId eot, ReadTokenId(file, kEotKey, vocab_size));

  // Models of the Llama 3 family want a BOS unless they say otherwise.
  adds_bos = bos >= 0;
  if (file.HasKey(kAddBosKey)) {
    ASSIGN_OR_RETURN(adds_bos, file.GetBool(kAddBosKey));
    if (adds_bos && bos < 0) {
      return absl::InvalidArgumentError(
          absl::StrCat(kAddBosKey, " is true, but there is no ", kBosKey));
    }
  }
  if (file.HasKey(kAddEosKey)) {
    ASSIGN_OR_RETURN(const bool adds_eos, file.GetBool(kAddEosKey));
    if (adds_eos) {
      return absl::UnimplementedError(
          absl::StrCat(kAddEosKey,
                       " is true; Tern serves models whose prompts "
                       "end without an end token"));
    }
  }

  const auto add_end = [this](TokenId id) {
    if (id >= 0 &&
        std::find(end_ids.begin(), end_ids.end(), id) == end_ids.end()) {
      end_ids.push_back(id);
    }
  };
  add_end(eos);
  add_end(eot);
  // Chat turns end with it even where no key says so.
  for (const AddedToken& token : added) {
    if (token.is_control && token.spelling == "<|eot_id|>") add_end(token.id);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::FromGguf(
    const GgufReader& file, int vocab_size) {
  for (const char* key : {kModelKey, kTokensKey, kTypesKey, kMergesKey}) {
    if (!file.HasKey(key)) {
      return absl::InvalidArgumentError(absl::StrCat(
          "the file has no metadata key ", key, ", which its tokenizer needs"));
    }
  }
  ASSIGN_OR_RETURN(const std::vector<absl::string_view> tokens,
                   file.GetStringArray(kTokensKey));
  RETURN_IF_ERROR(CheckKind(file, tokens));
  if (static_cast<int64_t>(tokens.size()) != vocab_size) {
    return absl::InvalidArgumentError(
        absl::StrCat(kTokensKey, " has ", tokens.size(),
                     " entries; the model's vocabulary has ", vocab_size));
  }
  auto state = std::make_unique<State>();
  RETURN_IF_ERROR(state->ReadTokens(file, tokens));
  RETURN_IF_ERROR(state->ReadMerges(file));
  RETURN_IF_ERROR(state->ReadSpecialIds(file));
  return std::unique_ptr<Tokenizer>(new Tokenizer(std::move(state)));
}

Tokenizer::Tokenizer(std::unique_ptr<const State> state)
    : state_(std::move(state)) {}

Tokenizer::~Tokenizer() = default;

// The longest added token that `text` begins with, or null. `added` is sorted,
// so that those with a common start are neighbours: each further byte narrows
// the range, whatever the number and the length of the tokens.
const AddedToken* Tokenizer::State::MatchAdded(absl::string_view text,
                                               bool parse_special) const {
  const AddedToken* longest = nullptr;
  auto begin = added.begin();
  auto end = added.end();
  for (size_t depth = 0; begin != end; ++depth) {
    // Those that end here come first, the lowest id before all.
    for (; begin != end && begin->spelling.size() == depth; ++begin) {
      const bool is_allowed = parse_special || !begin->is_control;
      const bool is_first =
          longest == nullptr || longest->spelling.size() < depth;
      if (is_allowed && is_first) longest = &*begin;
    }
    if (depth == text.size()) break;
    const auto at_depth = [depth](const AddedToken& token) {
      return static_cast<uint8_t>(token.spelling[depth]);
    };
    const uint8_t byte = text[depth];
    begin = std::lower_bound(begin, end, byte,
                             [&](const AddedToken& token, uint8_t b) {
                               return at_depth(token) < b;
                             });
    end = std::upper_bound(begin, end, byte,
                           [&](uint8_t b, const AddedToken& token) {
                             return b < at_depth(token);
                           });
  }
  return longest;
}

absl::Status Tokenizer::State::EncodePlain(absl::string_view text,
                                           std::vector<TokenId>* out,
                                           BpeMerges::Scratch* scratch) const {
  std::vector<TokenId> piece_bytes;
  return pretokenizer.Split(text, [&](absl::string_view piece) {
    // A piece that is a token is that token, whatever the merges say.
    const auto it = ids.find(piece);
    if (it != ids.end()) {
      out->push_back(it->second);
      return;
    }
    piece_bytes.clear();
    for (char c : piece)
      piece_bytes.push_back(byte_ids[static_cast<uint8_t>(c)]);
    merges.Merge(piece_bytes, scratch, out);
  });
}

absl::StatusOr<std::vector<TokenId>> Tokenizer::Encode(
    absl::string_view text, const EncodeOptions& options) const {
  if (text.size() > kTextBytesMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("the text has ", text.size(), " bytes; at most ",
                     kTextBytesMax, " can be tokenised"));
  }
  const size_t invalid = FindInvalidUtf8(text);
  if (invalid != absl::string_view::npos) {
    return absl::InvalidArgumentError(
        absl::StrCat("the text is not UTF-8 at byte offset ", invalid));
  }
  std::vector<TokenId> out;
  out.reserve(text.size() / 3 + 2);
  if (options.add_bos && state_->adds_bos) out.push_back(state_->bos);

  BpeMerges::Scratch scratch;
  const bool has_added =
      options.parse_special ? !state_->added.empty() : state_->has_user_defined;
  size_t begin = 0;
  for (size_t pos = 0; has_added && pos < text.size();) {
    const AddedToken* token = nullptr;
    if (state_->begins_added[static_cast<uint8_t>(text[pos])]) {
      token = state_->MatchAdded(text.substr(pos), options.parse_special);
    }
    if (token == nullptr) {
      ++pos;
      continue;
    }
    RETURN_IF_ERROR(
        state_->EncodePlain(text.substr(begin, pos - begin), &out, &scratch));
    out.push_back(token->id);
    pos += token->spelling.size();
    begin = pos;
  }
  RETURN_IF_ERROR(state_->EncodePlain(text.substr(begin), &out, &scratch));
  return out;
}

absl::string_view Tokenizer::TokenBytes(TokenId id) const {
  CHECK(id >= 0 && id < vocab_size()) << "token " << id;
  return state_->BytesOf(id);
}

bool Tokenizer::IsSpecial(TokenId id) const {
  CHECK(id >= 0 && id < vocab_size()) << "token " << id;
  const uint8_t type = state_->types[id];
  return type == kControl || type == kUnknown || type == kUnused;
}

std::string Tokenizer::Decode(absl::Span<const TokenId> ids,
                              bool keep_special) const {
  std::string bytes;
  for (TokenId id : ids) {
    if (!keep_special && IsSpecial(id)) continue;
    const absl::string_view token = TokenBytes(id);
    bytes.append(token.data(), token.size());
  }
  std::string text;
  if (AppendValidUtf8(bytes, &text) < bytes.size()) {
    text.append(kReplacementCharacter);
  }
  return text;
}

int Tokenizer::vocab_size() const {
  return static_cast<int>(state_->types.size());
}
TokenId Tokenizer::bos_id() const { return state_->bos; }
bool Tokenizer::adds_bos() const { return state_->adds_bos; }
const std::vector<TokenId>& Tokenizer::end_ids() const {
  return state_->end_ids;
}

std::string IncrementalDecoder::Next(TokenId id) {
  if (tokenizer_->IsSpecial(id)) return "";
  const absl::string_view token = tokenizer_->TokenBytes(id);
  pending_.append(token.data(), token.size());
  std::string text;
  const size_t taken = AppendValidUtf8(pending_, &text);
  pending_.erase(0, taken);
  return text;
}

std::string IncrementalDecoder::Finish() {
  if (pending_.empty()) return "";
  pending_.clear();
  return kReplacementCharacter;
}

}  // namespace tern
