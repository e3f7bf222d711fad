#include "model/tokenizer_json.h"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "model/byte_alphabet.h"
#include "model/json_place.h"
#include "model/piece_encoder.h"
#include "model/tokenizer_json_decoder.h"
#include "model/tokenizer_json_splits.h"
#include "model/tokenizer_state.h"
#include "util/status_macros.h"

namespace tern {
namespace {

// Far above any file, and small enough for the memory that parsing takes.
constexpr size_t kDocumentBytesMax = size_t{1} << 28;
// All tokens together, as text.
constexpr size_t kTokenBytesMax = size_t{1} << 28;
// Rows of a vocabulary, for the memory that they take before they are read.
constexpr int kVocabSizeMax = 1 << 24;

class Reader {
 public:
  Reader(const JsonPlace& root, const JsonPlace& config, int vocab_size,
         Tokenizer::State* state)
      : root_(root), config_(config), tokens_(vocab_size), state_(state) {}

  absl::Status Read();

 private:
  using Kind = Tokenizer::State::Kind;

  // What is known of an id. Views lie in the document.
  struct Token {
    absl::string_view content;
    bool is_used = false;
    bool is_in_model = false;  // the model's, not only an added one
    bool is_special = false;
  };

  absl::Status CheckModel(const JsonPlace& model);
  absl::Status ReadVocab(const JsonPlace& vocab);
  absl::Status ReadAddedTokens(const JsonPlace& list);
  absl::Status ReadAddedToken(const JsonPlace& place);
  absl::Status TakeId(const JsonPlace& place, int64_t id,
                      absl::string_view content);
  absl::Status CheckGaps();
  absl::Status DecodeTokens(const JsonPlace& decoder);
  absl::Status MakeEncoder(const JsonPlace& model);
  absl::Status AddFallbacks(const JsonPlace& model);
  absl::Status ReadMerges(const JsonPlace& merges);
  absl::Status ReadMerge(const JsonPlace& merge, uint32_t rank);
  absl::Status ReadPostProcessor(const JsonPlace& place);
  absl::Status ReadTemplate(const JsonPlace& place);
  absl::StatusOr<TokenId> TemplateToken(const JsonPlace& place,
                                        const JsonPlace& special) const;
  absl::StatusOr<TokenId> ConfigToken(absl::string_view key) const;
  absl::Status ReadSpecialIds();

  // What the pre-tokenizer makes of text spelled like that; false when it can
  // make nothing of it.
  bool AppendKey(absl::string_view spelling, std::string* key) const {
    if (state_->pretokenizer.is_byte_level()) {
      return AppendSpelledBytes(spelling, key);
    }
    key->append(spelling.data(), spelling.size());
    return true;
  }

  const JsonPlace& root_;
  const JsonPlace& config_;
  std::vector<Token> tokens_;  // by id
  absl::flat_hash_map<absl::string_view, TokenId> ids_;
  TokenId template_bos_ = -1;
  Tokenizer::State* const state_;
};

// As much of a token as an error shows.
std::string Shown(absl::string_view token) {
  return absl::StrCat("'", token.substr(0, 64), "'");
}

absl::Status Reader::Read() {
  ASSIGN_OR_RETURN(const JsonPlace model, root_.Member("model"));
  RETURN_IF_ERROR(CheckModel(model));
  ASSIGN_OR_RETURN(const JsonPlace normalizer, root_.Member("normalizer"));
  RETURN_IF_ERROR(ReadJsonNormalizer(normalizer, &state_->normalizer));
  ASSIGN_OR_RETURN(const JsonPlace splits, root_.Member("pre_tokenizer"));
  RETURN_IF_ERROR(ReadJsonPretokenizer(splits, &state_->pretokenizer));
  ASSIGN_OR_RETURN(const JsonPlace vocab, model.Member("vocab"));
  RETURN_IF_ERROR(ReadVocab(vocab));
  ASSIGN_OR_RETURN(const JsonPlace added, root_.Member("added_tokens"));
  RETURN_IF_ERROR(ReadAddedTokens(added));
  RETURN_IF_ERROR(CheckGaps());
  ASSIGN_OR_RETURN(const JsonPlace decoder, root_.Member("decoder"));
  RETURN_IF_ERROR(DecodeTokens(decoder));
  RETURN_IF_ERROR(MakeEncoder(model));
  ASSIGN_OR_RETURN(const JsonPlace post, root_.Member("post_processor"));
  RETURN_IF_ERROR(ReadPostProcessor(post));
  return ReadSpecialIds();
}

absl::Status Reader::CheckModel(const JsonPlace& model) {
  if (!model.value().is_object()) return model.Wrong("is not an object");
  // Files from before types had names are BPE when there are merges.
  ASSIGN_OR_RETURN(const JsonPlace merges, model.Member("merges"));
  ASSIGN_OR_RETURN(const absl::string_view type,
                   model.StringOr("type", merges.is_null() ? "" : "BPE"));
  if (type != "BPE") {
    return model.Unknown(
        absl::StrCat("is of type ", Shown(type), "; Tern knows BPE"));
  }
  ASSIGN_OR_RETURN(const JsonPlace dropout, model.Member("dropout"));
  const bool drops = !dropout.is_null() &&
                     !(dropout.value().is_number() && dropout.value() == 0);
  if (drops) {
    return dropout.Unknown("is set: one text would have many encodings");
  }
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    ASSIGN_OR_RETURN(const absl::string_view affix, model.StringOr(key, ""));
    if (!affix.empty()) {
      return model.Unknown(
          absl::StrCat("has a ", key, "; Tern knows BPE without"));
    }
  }
  return absl::OkStatus();
}

absl::Status Reader::TakeId(const JsonPlace& place, int64_t id,
                            absl::string_view content) {
  if (id < 0 || id >= static_cast<int64_t>(tokens_.size())) {
    return place.Wrong(absl::StrCat("gives ", Shown(content), " the id ", id,
                                    "; the model has ids 0 to ",
                                    static_cast<int64_t>(tokens_.size()) - 1));
  }
  Token& token = tokens_[id];
  if (token.is_used) {
    return place.Wrong(absl::StrCat("gives ", Shown(content), " the id ", id,
                                    ", which is that of ",
                                    Shown(token.content)));
  }
  token.is_used = true;
  token.content = content;
  ids_.emplace(content, static_cast<TokenId>(id));
  return absl::OkStatus();
}

absl::Status Reader::ReadVocab(const JsonPlace& vocab) {
  if (!vocab.value().is_object()) return vocab.Wrong("is not an object");
  ids_.reserve(vocab.value().size());
  for (const auto& [content, value] : vocab.value().items()) {
    const JsonPlace place(&value, vocab.name());
    const absl::StatusOr<int64_t> id = place.Int();
    if (!id.ok()) {
      return vocab.Wrong(absl::StrCat("gives ", Shown(content),
                                      " an id that is not an integer"));
    }
    // The key of an iterator's pair is a copy; this one stays.
    const auto it = vocab.value().find(content);
    RETURN_IF_ERROR(TakeId(vocab, *id, it.key()));
    tokens_[*id].is_in_model = true;
  }
  return absl::OkStatus();
}

absl::Status Reader::ReadAddedTokens(const JsonPlace& list) {
  if (!list.is_null()) {
    ASSIGN_OR_RETURN(const size_t n, list.ArraySize());
    for (size_t i = 0; i < n; ++i) {
      RETURN_IF_ERROR(ReadAddedToken(list.Element(i)));
    }
  }
  state_->added.Finish();
  state_->normalized_added.Finish();
  return absl::OkStatus();
}

absl::Status Reader::ReadAddedToken(const JsonPlace& place) {
  ASSIGN_OR_RETURN(const JsonPlace content_place, place.Member("content"));
  ASSIGN_OR_RETURN(const absl::string_view content, content_place.String());
  ASSIGN_OR_RETURN(const JsonPlace id_place, place.Member("id"));
  ASSIGN_OR_RETURN(const int64_t id, id_place.Int());
  const auto known = ids_.find(content);
  if (known == ids_.end()) {
    RETURN_IF_ERROR(TakeId(place, id, content));
  } else if (known->second != id) {
    return place.Wrong(absl::StrCat("gives ", Shown(content), " the id ", id,
                                    ", but it has the id ", known->second));
  }
  AddedTokens::Token token;
  token.id = static_cast<TokenId>(id);
  ASSIGN_OR_RETURN(token.is_special, place.BoolOr("special", false));
  ASSIGN_OR_RETURN(token.takes_left, place.BoolOr("lstrip", false));
  ASSIGN_OR_RETURN(token.takes_right, place.BoolOr("rstrip", false));
  ASSIGN_OR_RETURN(const bool is_normalized,
                   place.BoolOr("normalized", !token.is_special));
  ASSIGN_OR_RETURN(const bool is_word, place.BoolOr("single_word", false));
  if (is_word) return place.Unknown("has single_word set");
  tokens_[id].is_special |= token.is_special;
  // Without a content there is nothing to recognise.
  if (content.empty()) return absl::OkStatus();
  if (!is_normalized) {
    token.spelling = std::string(content);
    state_->added.Add(std::move(token));
    return absl::OkStatus();
  }
  std::string room;
  const absl::StatusOr<absl::string_view> normalized =
      state_->normalizer.Apply(content, &room);
  if (!normalized.ok()) {
    return absl::Status(
        normalized.status().code(),
        absl::StrCat(place.name(), ": ", normalized.status().message()));
  }
  if (normalized->empty()) return place.Wrong("is empty when normalized");
  token.spelling = std::string(*normalized);
  state_->normalized_added.Add(std::move(token));
  return absl::OkStatus();
}

// A model may have more rows than there are tokens, behind the last one alone.
absl::Status Reader::CheckGaps() {
  size_t n_used = tokens_.size();
  while (n_used > 0 && !tokens_[n_used - 1].is_used) --n_used;
  for (size_t id = 0; id < n_used; ++id) {
    if (!tokens_[id].is_used) {
      return root_.Wrong(absl::StrCat("has no token of id ", id,
                                      ", though ids go up to ", n_used - 1));
    }
  }
  if (n_used == 0) return root_.Wrong("has no tokens");
  return absl::OkStatus();
}

absl::Status Reader::DecodeTokens(const JsonPlace& place) {
  JsonDecoder decoder;
  RETURN_IF_ERROR(decoder.Read(place));
  std::string bytes;
  for (size_t id = 0; id < tokens_.size(); ++id) {
    const Token& token = tokens_[id];
    bytes.clear();
    if (token.is_used) {
      RETURN_IF_ERROR(decoder.AppendBytes(token.content, &bytes));
    }
    if (state_->bytes.size() + bytes.size() > kTokenBytesMax) {
      return place.Wrong(absl::StrCat("makes the tokens longer than ",
                                      kTokenBytesMax, " bytes altogether"));
    }
    state_->AddToken(bytes, token.is_used && !token.is_special
                                ? Kind::kText
                                : Kind::kControl);
  }
  state_->droppable = decoder.droppable();
  state_->n_droppable = decoder.n_droppable();
  state_->drops_from_first_token_only = decoder.drops_from_first_token_only();
  return absl::OkStatus();
}

absl::Status Reader::MakeEncoder(const JsonPlace& model) {
  PieceEncoder::Options options;
  options.is_byte_level = state_->pretokenizer.is_byte_level();
  ASSIGN_OR_RETURN(options.ignores_merges,
                   model.BoolOr("ignore_merges", false));
  ASSIGN_OR_RETURN(options.fuses_unknown, model.BoolOr("fuse_unk", false));
  state_->encoder = std::make_unique<PieceEncoder>(options);
  PieceEncoder& encoder = *state_->encoder;

  size_t key_bytes = 0;
  for (const Token& token : tokens_) key_bytes += token.content.size();
  std::string& keys = state_->encoder_keys;
  keys.reserve(key_bytes);
  for (size_t id = 0; id < tokens_.size(); ++id) {
    const Token& token = tokens_[id];
    // Text must not become a special token by its spelling.
    if (!token.is_in_model || token.is_special) continue;
    const size_t begin = keys.size();
    if (!AppendKey(token.content, &keys) || keys.size() == begin) {
      keys.resize(begin);
      continue;
    }
    encoder.AddToken(absl::string_view(keys).substr(begin),
                     static_cast<TokenId>(id));
  }
  RETURN_IF_ERROR(AddFallbacks(model));
  ASSIGN_OR_RETURN(const JsonPlace merges, model.Member("merges"));
  RETURN_IF_ERROR(ReadMerges(merges));
  encoder.Finish();
  return absl::OkStatus();
}

// What becomes of text without tokens.
absl::Status Reader::AddFallbacks(const JsonPlace& model) {
  PieceEncoder& encoder = *state_->encoder;
  ASSIGN_OR_RETURN(const JsonPlace unknown, model.Member("unk_token"));
  if (!unknown.is_null()) {
    ASSIGN_OR_RETURN(const absl::string_view content, unknown.String());
    const auto it = ids_.find(content);
    if (it == ids_.end()) return unknown.Wrong("is not in the vocabulary");
    encoder.SetUnknownToken(it->second);
  }
  if (state_->pretokenizer.is_byte_level()) {
    const int missing = encoder.FirstByteWithoutToken();
    if (missing < 0) return absl::OkStatus();
    return model.Wrong(absl::StrCat(
        "has no token for the byte ", missing,
        "; byte-level BPE needs one for every byte of ordinary text"));
  }
  ASSIGN_OR_RETURN(const bool has_bytes, model.BoolOr("byte_fallback", false));
  if (has_bytes) {
    static constexpr char kDigits[] = "0123456789ABCDEF";
    for (int byte = 0; byte < 256; ++byte) {
      const std::string spelling = {
          '<', '0', 'x', kDigits[byte >> 4], kDigits[byte & 15], '>'};
      const auto it = ids_.find(spelling);
      if (it != ids_.end()) {
        encoder.SetByteToken(static_cast<uint8_t>(byte), it->second);
      }
    }
  }
  if (encoder.FirstByteWithoutToken() >= 0 && !encoder.has_unknown_token()) {
    return model.Wrong(
        "has neither an unk_token nor byte_fallback with tokens <0x00> to "
        "<0xFF>; text without tokens would get lost");
  }
  return absl::OkStatus();
}

absl::Status Reader::ReadMerges(const JsonPlace& merges) {
  if (merges.is_null()) return absl::OkStatus();
  ASSIGN_OR_RETURN(const size_t n, merges.ArraySize());
  state_->encoder->Reserve(0, n);
  for (size_t rank = 0; rank < n; ++rank) {
    RETURN_IF_ERROR(
        ReadMerge(merges.Element(rank), static_cast<uint32_t>(rank)));
  }
  return absl::OkStatus();
}

// "a b" or ["a", "b"].
absl::Status Reader::ReadMerge(const JsonPlace& merge, uint32_t rank) {
  absl::string_view halves[2];
  if (merge.value().is_array()) {
    if (merge.value().size() != 2) return merge.Wrong("is not a pair");
    for (int i = 0; i < 2; ++i) {
      ASSIGN_OR_RETURN(halves[i], merge.Element(i).String());
    }
  } else {
    ASSIGN_OR_RETURN(const absl::string_view both, merge.String());
    const size_t space = both.find(' ');
    if (space == absl::string_view::npos ||
        both.find(' ', space + 1) != absl::string_view::npos) {
      return merge.Wrong("is not two tokens with one space between them");
    }
    halves[0] = both.substr(0, space);
    halves[1] = both.substr(space + 1);
  }
  PieceEncoder& encoder = *state_->encoder;
  std::string keys[2];
  TokenId ids[2];
  for (int i = 0; i < 2; ++i) {
    ids[i] = AppendKey(halves[i], &keys[i]) ? encoder.Find(keys[i]) : -1;
    if (ids[i] < 0) {
      return merge.Wrong(
          absl::StrCat("joins ", Shown(halves[i]), ", which is no token"));
    }
  }
  const TokenId joined = encoder.Find(absl::StrCat(keys[0], keys[1]));
  if (joined < 0) {
    return merge.Wrong(absl::StrCat("joins ", Shown(halves[0]), " and ",
                                    Shown(halves[1]),
                                    ", which together are no token"));
  }
  if (!encoder.AddMerge(keys[0], ids[0], keys[1], ids[1], joined, rank)) {
    return merge.Wrong("is there a second time");
  }
  return absl::OkStatus();
}

absl::Status Reader::ReadPostProcessor(const JsonPlace& place) {
  if (place.is_null()) return absl::OkStatus();
  ASSIGN_OR_RETURN(const absl::string_view type, place.Type());
  if (type == "ByteLevel") return absl::OkStatus();  // about offsets
  if (type == "TemplateProcessing") return ReadTemplate(place);
  if (type == "Sequence") {
    ASSIGN_OR_RETURN(const JsonPlace list, place.Member("processors"));
    ASSIGN_OR_RETURN(const size_t n, list.ArraySize());
    for (size_t i = 0; i < n; ++i) {
      RETURN_IF_ERROR(ReadPostProcessor(list.Element(i)));
    }
    return absl::OkStatus();
  }
  return place.Unknown(
      absl::StrCat("is of type ", Shown(type),
                   "; Tern knows Sequence, TemplateProcessing and ByteLevel"));
}

absl::Status Reader::ReadTemplate(const JsonPlace& place) {
  ASSIGN_OR_RETURN(const JsonPlace list, place.Member("single"));
  ASSIGN_OR_RETURN(const size_t n, list.ArraySize());
  bool after_text = false;
  for (size_t i = 0; i < n; ++i) {
    const JsonPlace part = list.Element(i);
    ASSIGN_OR_RETURN(const JsonPlace text, part.Member("Sequence"));
    if (!text.is_null()) {
      if (after_text) return part.Wrong("is the text a second time");
      after_text = true;
      continue;
    }
    ASSIGN_OR_RETURN(const JsonPlace special, part.Member("SpecialToken"));
    if (special.is_null()) {
      return part.Wrong("is neither a Sequence nor a SpecialToken");
    }
    if (after_text) {
      return part.Unknown(
          "adds a token behind the text; Tern serves models "
          "whose prompts end without an end token");
    }
    if (template_bos_ >= 0) {
      return part.Unknown("adds a second token before the text");
    }
    ASSIGN_OR_RETURN(template_bos_, TemplateToken(place, special));
  }
  if (!after_text) return list.Wrong("leaves the text out");
  return absl::OkStatus();
}

// The id of a template's special token.
absl::StatusOr<TokenId> Reader::TemplateToken(const JsonPlace& place,
                                              const JsonPlace& special) const {
  ASSIGN_OR_RETURN(const JsonPlace name, special.Member("id"));
  ASSIGN_OR_RETURN(const absl::string_view key, name.String());
  ASSIGN_OR_RETURN(const JsonPlace table, place.Member("special_tokens"));
  ASSIGN_OR_RETURN(const JsonPlace entry, table.Member(key));
  ASSIGN_OR_RETURN(const JsonPlace ids, entry.Member("ids"));
  ASSIGN_OR_RETURN(const size_t n, ids.ArraySize());
  if (n != 1) return ids.Unknown("has not exactly one id");
  ASSIGN_OR_RETURN(const int64_t id, ids.Element(0).Int());
  if (id < 0 || id >= static_cast<int64_t>(tokens_.size()) ||
      !tokens_[id].is_used) {
    return ids.Wrong(absl::StrCat("has ", id, ", which is no token's id"));
  }
  return static_cast<TokenId>(id);
}

// "<s>", or {"content": "<s>", ...}. -1 if there is none.
absl::StatusOr<TokenId> Reader::ConfigToken(absl::string_view key) const {
  ASSIGN_OR_RETURN(JsonPlace place, config_.Member(key));
  if (place.is_null()) return -1;
  if (place.value().is_object()) {
    ASSIGN_OR_RETURN(place, place.Member("content"));
  }
  ASSIGN_OR_RETURN(const absl::string_view content, place.String());
  const auto it = ids_.find(content);
  if (it == ids_.end()) {
    return place.Wrong(
        absl::StrCat("is ", Shown(content), ", which is no token"));
  }
  return it->second;
}

absl::Status Reader::ReadSpecialIds() {
  ASSIGN_OR_RETURN(state_->bos, ConfigToken("bos_token"));
  ASSIGN_OR_RETURN(state_->eos, ConfigToken("eos_token"));
  ASSIGN_OR_RETURN(state_->adds_bos,
                   config_.BoolOr("add_bos_token", template_bos_ >= 0));
  // What is put before a text is what the template says.
  if (template_bos_ >= 0) state_->bos = template_bos_;
  if (state_->adds_bos && state_->bos < 0) {
    return config_.Wrong("wants a BOS token before texts, but names none");
  }
  ASSIGN_OR_RETURN(const bool adds_eos, config_.BoolOr("add_eos_token", false));
  if (adds_eos) {
    return config_.Unknown(
        "has add_eos_token set; Tern serves models whose prompts end without "
        "an end token");
  }
  state_->AddEnd(state_->eos);
  state_->AddEndsByName();
  if (!state_->end_ids.empty()) return absl::OkStatus();
  // Nothing says how a text ends: by a token with such a name.
  for (absl::string_view name :
       {"</s>", "<|end_of_text|>", "<|endoftext|>", "<|im_end|>"}) {
    const auto it = ids_.find(name);
    if (it != ids_.end() && tokens_[it->second].is_special) {
      state_->AddEnd(it->second);
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ReadJsonTokenizer(absl::string_view tokenizer_json,
                               absl::string_view tokenizer_config_json,
                               int vocab_size, Tokenizer::State* state) {
  for (absl::string_view text : {tokenizer_json, tokenizer_config_json}) {
    if (text.size() > kDocumentBytesMax) {
      return absl::InvalidArgumentError(
          absl::StrCat("a tokenizer file has ", text.size(), " bytes; at most ",
                       kDocumentBytesMax, " are allowed"));
    }
  }
  if (vocab_size <= 0 || vocab_size > kVocabSizeMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("the model's vocabulary has ", vocab_size,
                     " entries; it may have 1 to ", kVocabSizeMax));
  }
  ASSIGN_OR_RETURN(const nlohmann::json document,
                   ParseJson(tokenizer_json, "tokenizer.json"));
  nlohmann::json config;
  if (!tokenizer_config_json.empty()) {
    ASSIGN_OR_RETURN(config,
                     ParseJson(tokenizer_config_json, "tokenizer_config.json"));
  }
  const JsonPlace root(&document, "tokenizer.json");
  if (!document.is_object()) return root.Wrong("is not an object");
  const JsonPlace config_place(&config, "tokenizer_config.json");
  return Reader(root, config_place, vocab_size, state).Read();
}

}  // namespace tern
