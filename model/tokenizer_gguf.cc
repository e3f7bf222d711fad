#include "model/tokenizer_gguf.h"

#include <cmath>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/types/span.h"
#include "model/byte_alphabet.h"
#include "model/gguf_types.h"
#include "model/named_splits.h"
#include "model/piece_encoder.h"
#include "model/spm_merges.h"
#include "model/tokenizer_state.h"
#include "model/unicode_space.h"
#include "util/status_macros.h"
#include "util/utf8.h"

namespace tern {
namespace {

constexpr char kModelKey[] = "tokenizer.ggml.model";
constexpr char kPreKey[] = "tokenizer.ggml.pre";
constexpr char kTokensKey[] = "tokenizer.ggml.tokens";
constexpr char kScoresKey[] = "tokenizer.ggml.scores";
constexpr char kTypesKey[] = "tokenizer.ggml.token_type";
constexpr char kMergesKey[] = "tokenizer.ggml.merges";
constexpr char kBosKey[] = "tokenizer.ggml.bos_token_id";
constexpr char kEosKey[] = "tokenizer.ggml.eos_token_id";
constexpr char kEotKey[] = "tokenizer.ggml.eot_token_id";
constexpr char kUnknownKey[] = "tokenizer.ggml.unknown_token_id";
constexpr char kPaddingKey[] = "tokenizer.ggml.padding_token_id";
constexpr char kAddBosKey[] = "tokenizer.ggml.add_bos_token";
constexpr char kAddEosKey[] = "tokenizer.ggml.add_eos_token";
constexpr char kAddSpaceKey[] = "tokenizer.ggml.add_space_prefix";

// Of Llama 3, whose files do not always say which split they want.
constexpr int kLlama3VocabSize = 128256;
constexpr int kLlama3Bos = 128000;

class Reader {
 public:
  Reader(const GgufReader& file, Tokenizer::State* state)
      : file_(file), state_(state) {}

  absl::Status Read(int vocab_size);

 private:
  using Kind = Tokenizer::State::Kind;

  absl::Status RequireKeys(absl::Span<const char* const> keys);
  absl::Status ReadByteLevel();
  absl::Status ReadSentencePiece();
  absl::StatusOr<const NamedSplit*> ChooseSplit();
  // A token's bytes where it is text; others are spelled as they are.
  absl::Status ReadTokens(
      int32_t type_max,
      absl::FunctionRef<absl::Status(int id, std::string* bytes)> read_text);
  absl::Status ReadMerges();
  absl::Status ReadScores();
  absl::StatusOr<TokenId> ReadTokenId(absl::string_view key);
  absl::Status ReadSpecialIds(bool adds_bos_by_default);

  const GgufReader& file_;
  Tokenizer::State* const state_;
  std::vector<absl::string_view> tokens_;  // spellings
  std::vector<int32_t> types_;             // TokenType
};

absl::Status Reader::RequireKeys(absl::Span<const char* const> keys) {
  for (const char* key : keys) {
    if (!file_.HasKey(key)) {
      return absl::InvalidArgumentError(absl::StrCat(
          "the file has no metadata key ", key, ", which its tokenizer needs"));
    }
  }
  return absl::OkStatus();
}

absl::Status Reader::Read(int vocab_size) {
  RETURN_IF_ERROR(RequireKeys({kModelKey, kTokensKey, kTypesKey}));
  ASSIGN_OR_RETURN(tokens_, file_.GetStringArray(kTokensKey));
  ASSIGN_OR_RETURN(const absl::string_view model, file_.GetString(kModelKey));
  if (model != "gpt2" && model != "llama") {
    return absl::UnimplementedError(
        absl::StrCat(kModelKey, " is '", model,
                     "'; Tern reads byte-level BPE, which is called 'gpt2', "
                     "and SentencePiece's BPE, which is called 'llama'"));
  }
  if (static_cast<int64_t>(tokens_.size()) != vocab_size) {
    return absl::InvalidArgumentError(
        absl::StrCat(kTokensKey, " has ", tokens_.size(),
                     " entries; the model's vocabulary has ", vocab_size));
  }
  ASSIGN_OR_RETURN(types_, file_.GetIntArray(kTypesKey));
  if (types_.size() != tokens_.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat(kTypesKey, " has ", types_.size(), " entries; ",
                     kTokensKey, " has ", tokens_.size()));
  }
  return model == "gpt2" ? ReadByteLevel() : ReadSentencePiece();
}

absl::StatusOr<const NamedSplit*> Reader::ChooseSplit() {
  if (!file_.HasKey(kPreKey)) {
    if (tokens_.size() == kLlama3VocabSize &&
        tokens_[kLlama3Bos] == "<|begin_of_text|>") {
      return FindNamedSplit("llama-bpe");
    }
    return absl::UnimplementedError(absl::StrCat(
        "the file has no ", kPreKey,
        " and its vocabulary is not that of Llama 3; convert the model again "
        "with one of the splits that Tern knows: ",
        NamedSplitList()));
  }
  ASSIGN_OR_RETURN(const absl::string_view pre, file_.GetString(kPreKey));
  const NamedSplit* const split = FindNamedSplit(pre);
  if (split == nullptr) {
    return absl::UnimplementedError(absl::StrCat(
        kPreKey, " is '", pre, "'; Tern knows the splits ", NamedSplitList(),
        "; if one of them is the same by another name, convert "
        "the model again with that name"));
  }
  return split;
}

absl::Status Reader::ReadTokens(
    int32_t type_max,
    absl::FunctionRef<absl::Status(int id, std::string* bytes)> read_text) {
  size_t spelling_bytes = 0;
  for (absl::string_view token : tokens_) spelling_bytes += token.size();
  state_->bytes.reserve(spelling_bytes);
  state_->offsets.reserve(tokens_.size() + 1);
  state_->kinds.reserve(tokens_.size());
  std::string bytes;
  for (size_t id = 0; id < tokens_.size(); ++id) {
    const int32_t type = types_[id];
    if (type < kGgufTokenNormal || type > type_max) {
      return absl::InvalidArgumentError(absl::StrCat(
          kTypesKey, " of token ", id, " is ", type,
          "; this kind of tokenizer has the types 1 to ", type_max));
    }
    bytes.clear();
    if (type == kGgufTokenNormal || type == kGgufTokenByte) {
      RETURN_IF_ERROR(read_text(static_cast<int>(id), &bytes));
    } else {
      // What these stand for becomes text as it is spelled.
      if (FindInvalidUtf8(tokens_[id]) != absl::string_view::npos) {
        return absl::InvalidArgumentError(
            absl::StrCat(kTokensKey, " is not UTF-8 at token ", id));
      }
      bytes.assign(tokens_[id].data(), tokens_[id].size());
    }
    const bool is_text = type == kGgufTokenNormal || type == kGgufTokenByte ||
                         type == kGgufTokenUserDefined;
    state_->AddToken(bytes, is_text ? Kind::kText : Kind::kControl);
    if ((type == kGgufTokenControl || type == kGgufTokenUserDefined) &&
        !bytes.empty()) {
      state_->added.Add(
          {bytes, static_cast<TokenId>(id), type == kGgufTokenControl});
    }
  }
  state_->added.Finish();
  return absl::OkStatus();
}

absl::Status Reader::ReadByteLevel() {
  RETURN_IF_ERROR(RequireKeys({kMergesKey}));
  ASSIGN_OR_RETURN(const NamedSplit* const split, ChooseSplit());
  AddNamedSplit(*split, &state_->pretokenizer);
  RETURN_IF_ERROR(
      ReadTokens(kGgufTokenUnused, [this](int id, std::string* bytes) {
        if (AppendSpelledBytes(tokens_[id], bytes)) return absl::OkStatus();
        return absl::InvalidArgumentError(
            absl::StrCat(kTokensKey, " has a character at token ", id,
                         " that byte-level BPE does not spell bytes with"));
      }));

  PieceEncoder::Options options;
  options.is_byte_level = true;
  options.ignores_merges = split->ignores_merges;
  state_->encoder = std::make_unique<PieceEncoder>(options);
  // `bytes` stays where it is from here on.
  for (size_t id = 0; id < types_.size(); ++id) {
    const absl::string_view token = state_->BytesOf(static_cast<TokenId>(id));
    if (types_[id] == kGgufTokenNormal && !token.empty()) {
      state_->encoder->AddToken(token, static_cast<TokenId>(id));
    }
  }
  const int missing = state_->encoder->FirstByteWithoutToken();
  if (missing >= 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        kTokensKey, " has no token for the byte ", missing,
        "; byte-level BPE needs one for every byte of ordinary text"));
  }
  RETURN_IF_ERROR(ReadMerges());
  state_->encoder->Finish();
  return ReadSpecialIds(split->adds_bos);
}

absl::Status Reader::ReadMerges() {
  ASSIGN_OR_RETURN(const std::vector<absl::string_view> list,
                   file_.GetStringArray(kMergesKey));
  PieceEncoder& encoder = *state_->encoder;
  encoder.Reserve(types_.size(), list.size());
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
      const absl::string_view left =
          absl::string_view(joined).substr(0, left_bytes);
      const absl::string_view right =
          absl::string_view(joined).substr(left_bytes);
      const TokenId left_id = encoder.Find(left);
      const TokenId right_id = encoder.Find(right);
      const TokenId joined_id = encoder.Find(joined);
      is_known = left_id >= 0 && right_id >= 0 && joined_id >= 0;
      // Of a pair that is there twice the first rank counts.
      if (is_known) {
        encoder.AddMerge(left, left_id, right, right_id, joined_id,
                         static_cast<uint32_t>(rank));
      }
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

absl::Status Reader::ReadSentencePiece() {
  RETURN_IF_ERROR(RequireKeys({kScoresKey}));
  RETURN_IF_ERROR(
      ReadTokens(kGgufTokenByte, [this](int id, std::string* bytes) {
        const absl::string_view token = tokens_[id];
        if (types_[id] == kGgufTokenByte) {
          const int byte = ByteOfToken(token);
          if (byte < 0) {
            return absl::InvalidArgumentError(
                absl::StrCat(kTokensKey, " has a byte token ", id,
                             " that is not spelled like <0x0A>"));
          }
          bytes->push_back(static_cast<char>(byte));
          return absl::OkStatus();
        }
        if (FindInvalidUtf8(token) != absl::string_view::npos) {
          return absl::InvalidArgumentError(
              absl::StrCat(kTokensKey, " is not UTF-8 at token ", id));
        }
        *bytes = absl::StrReplaceAll(token, {{kSpaceMark, " "}});
        return absl::OkStatus();
      }));

  bool adds_space = true;
  if (file_.HasKey(kAddSpaceKey)) {
    ASSIGN_OR_RETURN(adds_space, file_.GetBool(kAddSpaceKey));
  }
  if (adds_space) {
    state_->normalizer.AddPrepend(kSpaceMark);
    state_->droppable = " ";
    state_->n_droppable = 1;
  }
  state_->normalizer.AddReplace(" ", kSpaceMark);

  PieceEncoder::Options options;
  options.is_byte_level = false;
  state_->encoder = std::make_unique<PieceEncoder>(options);
  RETURN_IF_ERROR(ReadScores());
  return ReadSpecialIds(/*adds_bos_by_default=*/true);
}

absl::Status Reader::ReadScores() {
  ASSIGN_OR_RETURN(const std::vector<float> scores,
                   file_.GetFloatArray(kScoresKey));
  if (scores.size() != tokens_.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat(kScoresKey, " has ", scores.size(), " entries; ",
                     kTokensKey, " has ", tokens_.size()));
  }
  PieceEncoder& encoder = *state_->encoder;
  // Text has spaces marked by the time it gets there, and so have the keys.
  size_t key_bytes = 0;
  for (absl::string_view token : tokens_) key_bytes += token.size();
  state_->encoder_keys.reserve(key_bytes);
  std::vector<ScoredToken> scored;
  for (size_t i = 0; i < tokens_.size(); ++i) {
    const TokenId id = static_cast<TokenId>(i);
    if (types_[i] == kGgufTokenUnknown) {
      encoder.SetUnknownToken(id);
    } else if (types_[i] == kGgufTokenByte) {
      encoder.SetByteToken(state_->BytesOf(id)[0], id);
    }
    if (types_[i] != kGgufTokenNormal && types_[i] != kGgufTokenUserDefined)
      continue;
    if (tokens_[i].empty()) continue;
    if (tokens_[i].size() > kSpmTokenBytesMax) {
      return absl::InvalidArgumentError(absl::StrCat(
          kTokensKey, " has ", tokens_[i].size(), " bytes at token ", i,
          "; at most ", kSpmTokenBytesMax, " are allowed"));
    }
    if (!std::isfinite(scores[i])) {
      return absl::InvalidArgumentError(
          absl::StrCat(kScoresKey, " of token ", i, " is not finite"));
    }
    std::string& keys = state_->encoder_keys;
    const size_t begin = keys.size();
    keys.append(tokens_[i].data(), tokens_[i].size());
    const absl::string_view key = absl::string_view(keys).substr(begin);
    if (encoder.AddToken(key, id)) scored.push_back({key, id, scores[i]});
  }
  const int missing = encoder.FirstByteWithoutToken();
  if (missing >= 0 && !encoder.has_unknown_token()) {
    return absl::InvalidArgumentError(absl::StrCat(
        kTokensKey, " has no token for the byte ", missing,
        " and none for unknown text (type 2); text would get lost"));
  }
  AddSpmMerges(scored, &encoder);
  encoder.Finish();
  return absl::OkStatus();
}

// Absent keys have id -1.
absl::StatusOr<TokenId> Reader::ReadTokenId(absl::string_view key) {
  if (!file_.HasKey(key)) return -1;
  ASSIGN_OR_RETURN(const int64_t id, file_.GetInt(key));
  if (id < 0 || id >= state_->vocab_size()) {
    return absl::InvalidArgumentError(
        absl::StrCat(key, " is ", id, "; the vocabulary has ids 0 to ",
                     state_->vocab_size() - 1));
  }
  return static_cast<TokenId>(id);
}

absl::Status Reader::ReadSpecialIds(bool adds_bos_by_default) {
  // Not used, but a file that gets them wrong is not to be trusted.
  RETURN_IF_ERROR(ReadTokenId(kUnknownKey).status());
  RETURN_IF_ERROR(ReadTokenId(kPaddingKey).status());
  ASSIGN_OR_RETURN(state_->bos, ReadTokenId(kBosKey));
  ASSIGN_OR_RETURN(state_->eos, ReadTokenId(kEosKey));
  ASSIGN_OR_RETURN(const TokenId eot, ReadTokenId(kEotKey));

  state_->adds_bos = adds_bos_by_default && state_->bos >= 0;
  if (file_.HasKey(kAddBosKey)) {
    ASSIGN_OR_RETURN(state_->adds_bos, file_.GetBool(kAddBosKey));
    if (state_->adds_bos && state_->bos < 0) {
      return absl::InvalidArgumentError(
          absl::StrCat(kAddBosKey, " is true, but there is no ", kBosKey));
    }
  }
  if (file_.HasKey(kAddEosKey)) {
    ASSIGN_OR_RETURN(const bool adds_eos, file_.GetBool(kAddEosKey));
    if (adds_eos) {
      return absl::UnimplementedError(
          absl::StrCat(kAddEosKey,
                       " is true; Tern serves models whose prompts "
                       "end without an end token"));
    }
  }
  state_->AddEnd(state_->eos);
  state_->AddEnd(eot);
  state_->AddEndsByName();
  return absl::OkStatus();
}

}  // namespace

absl::Status ReadGgufTokenizer(const GgufReader& file, int vocab_size,
                               Tokenizer::State* state) {
  return Reader(file, state).Read(vocab_size);
}

}  // namespace tern
