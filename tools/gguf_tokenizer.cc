#include "tools/gguf_tokenizer.h"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/statusor.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "absl/types/span.h"
#include "model/gguf_reader.h"
#include "model/gguf_types.h"
#include "model/json_place.h"
#include "model/named_splits.h"
#include "model/unicode_space.h"
#include "util/status_macros.h"
#include "util/utf8.h"

namespace tern {
namespace {

// As much of a text as an error shows.
std::string Shown(absl::string_view text) {
  return absl::StrCat("'", absl::Utf8SafeCHexEscape(text.substr(0, 48)), "'");
}

absl::Status Inexpressible(absl::string_view what) {
  return absl::UnimplementedError(
      absl::StrCat("a GGUF file cannot hold this tokenizer: ", what,
                   "; serve the directory as it is"));
}

bool IsSpaceRun(absl::string_view text) {
  while (absl::ConsumePrefix(&text, kSpaceMark)) {
  }
  return text.empty();
}

bool IsOneCharacter(absl::string_view text) {
  size_t size = 0;
  if (!text.empty()) NextCharacter(text, &size);
  return size != 0 && size == text.size();
}

// Turns a tokenizer.json that Tokenizer::FromJson() has read, and so found to
// be in order, into the values of tokenizer.ggml.*.
class Exporter {
 public:
  Exporter(const JsonPlace& root, const Tokenizer& tokenizer)
      : root_(root),
        tokenizer_(tokenizer),
        tokens_(tokenizer.vocab_size()),
        types_(tokenizer.vocab_size(), kGgufTokenUnused) {}

  absl::Status Read();
  void SetKeys(GgufHeader* header) const;

  std::vector<bool> Unused() const {
    std::vector<bool> unused;
    for (int32_t type : types_) unused.push_back(type == kGgufTokenUnused);
    return unused;
  }

 private:
  absl::Status ReadTokens(const JsonPlace& model);
  absl::Status ReadAddedToken(const JsonPlace& place);
  absl::Status ReadByteLevel(const JsonPlace& model,
                             absl::Span<const JsonPlace> normalizers,
                             absl::Span<const JsonPlace> splits);
  absl::Status ReadSentencePiece(const JsonPlace& model,
                                 absl::Span<const JsonPlace> normalizers,
                                 absl::Span<const JsonPlace> splits);
  absl::Status ReadMerges(const JsonPlace& model);
  absl::Status ReadScores();
  absl::Status ReadEndTokens();

  const JsonPlace& root_;
  const Tokenizer& tokenizer_;
  std::vector<std::string> tokens_;  // spellings, by id
  std::vector<int32_t> types_;       // TokenType, by id
  absl::flat_hash_map<std::string, int32_t> ids_;
  std::vector<std::pair<std::string, std::string>> merges_;  // by rank

  const NamedSplit* split_ = nullptr;  // byte-level BPE only
  bool adds_space_prefix_ = false;
  std::vector<float> scores_;  // SentencePiece only
  int32_t unknown_id_ = -1;
  std::vector<TokenId> end_ids_;
};

// The steps of a part that may be null, one step, or a sequence of them.
absl::Status Flatten(const JsonPlace& place, absl::string_view list_key,
                     std::vector<JsonPlace>* steps) {
  if (place.is_null()) return absl::OkStatus();
  ASSIGN_OR_RETURN(const absl::string_view type, place.Type());
  if (type != "Sequence") {
    steps->push_back(place);
    return absl::OkStatus();
  }
  ASSIGN_OR_RETURN(const JsonPlace list, place.Member(list_key));
  ASSIGN_OR_RETURN(const size_t n, list.ArraySize());
  for (size_t i = 0; i < n; ++i) {
    RETURN_IF_ERROR(Flatten(list.Element(i), list_key, steps));
  }
  return absl::OkStatus();
}

absl::Status Exporter::Read() {
  ASSIGN_OR_RETURN(const JsonPlace model, root_.Member("model"));
  RETURN_IF_ERROR(ReadTokens(model));
  RETURN_IF_ERROR(ReadMerges(model));
  RETURN_IF_ERROR(ReadEndTokens());
  std::vector<JsonPlace> normalizers, splits;
  ASSIGN_OR_RETURN(const JsonPlace normalizer, root_.Member("normalizer"));
  RETURN_IF_ERROR(Flatten(normalizer, "normalizers", &normalizers));
  ASSIGN_OR_RETURN(const JsonPlace splitter, root_.Member("pre_tokenizer"));
  RETURN_IF_ERROR(Flatten(splitter, "pretokenizers", &splits));
  for (const JsonPlace& step : splits) {
    ASSIGN_OR_RETURN(const absl::string_view type, step.Type());
    if (type == "ByteLevel") return ReadByteLevel(model, normalizers, splits);
  }
  return ReadSentencePiece(model, normalizers, splits);
}

absl::Status Exporter::ReadTokens(const JsonPlace& model) {
  for (size_t id = 0; id < tokens_.size(); ++id) {
    tokens_[id] = absl::StrCat("[PAD", id, "]");
  }
  ASSIGN_OR_RETURN(const JsonPlace vocab, model.Member("vocab"));
  for (const auto& [content, value] : vocab.value().items()) {
    const int32_t id = value.get<int32_t>();
    tokens_[id] = content;
    types_[id] = kGgufTokenNormal;
    ids_.emplace(content, id);
  }
  ASSIGN_OR_RETURN(const JsonPlace added, root_.Member("added_tokens"));
  if (added.is_null()) return absl::OkStatus();
  ASSIGN_OR_RETURN(const size_t n, added.ArraySize());
  for (size_t i = 0; i < n; ++i) {
    RETURN_IF_ERROR(ReadAddedToken(added.Element(i)));
  }
  return absl::OkStatus();
}

absl::Status Exporter::ReadAddedToken(const JsonPlace& place) {
  ASSIGN_OR_RETURN(const JsonPlace content, place.Member("content"));
  ASSIGN_OR_RETURN(const absl::string_view spelling, content.String());
  ASSIGN_OR_RETURN(const JsonPlace id_place, place.Member("id"));
  ASSIGN_OR_RETURN(const int64_t id, id_place.Int());
  ASSIGN_OR_RETURN(const bool is_special, place.BoolOr("special", false));
  for (const char* const side : {"lstrip", "rstrip"}) {
    ASSIGN_OR_RETURN(const bool strips, place.BoolOr(side, false));
    if (strips) {
      return Inexpressible(absl::StrCat("its token ", Shown(spelling), " has ",
                                        side, ", the white space beside it"));
    }
  }
  tokens_[id] = std::string(spelling);
  types_[id] = is_special ? kGgufTokenControl : kGgufTokenUserDefined;
  ids_.emplace(spelling, static_cast<int32_t>(id));
  return absl::OkStatus();
}

absl::Status Exporter::ReadMerges(const JsonPlace& model) {
  ASSIGN_OR_RETURN(const JsonPlace list, model.Member("merges"));
  if (list.is_null()) return absl::OkStatus();
  ASSIGN_OR_RETURN(const size_t n, list.ArraySize());
  for (size_t rank = 0; rank < n; ++rank) {
    const nlohmann::json& merge = list.value()[rank];
    if (merge.is_array()) {
      merges_.emplace_back(merge[0].get<std::string>(),
                           merge[1].get<std::string>());
      continue;
    }
    const std::string both = merge.get<std::string>();
    const size_t space = both.find(' ');
    merges_.emplace_back(both.substr(0, space), both.substr(space + 1));
  }
  return absl::OkStatus();
}

// A file has two keys for tokens that end a text, and <|eot_id|> needs none.
absl::Status Exporter::ReadEndTokens() {
  for (TokenId id : tokenizer_.end_ids()) {
    if (end_ids_.size() < 2) {
      end_ids_.push_back(id);
    } else if (tokens_[id] != "<|eot_id|>") {
      return Inexpressible(absl::StrCat("it has ", tokenizer_.end_ids().size(),
                                        " tokens that end a text"));
    }
  }
  return absl::OkStatus();
}

absl::Status Exporter::ReadByteLevel(const JsonPlace& model,
                                     absl::Span<const JsonPlace> normalizers,
                                     absl::Span<const JsonPlace> splits) {
  if (!normalizers.empty()) {
    ASSIGN_OR_RETURN(const absl::string_view type, normalizers[0].Type());
    return Inexpressible(
        absl::StrCat("it normalizes text (", type,
                     "), and byte-level BPE of GGUF does not"));
  }
  const absl::Status no_name = Inexpressible(
      absl::StrCat("no tokenizer.ggml.pre stands for the way it splits text (",
                   "there are ", NamedSplitList(), ")"));
  std::vector<std::string> patterns;
  for (size_t i = 0; i < splits.size(); ++i) {
    const JsonPlace& step = splits[i];
    ASSIGN_OR_RETURN(const absl::string_view type, step.Type());
    if (type == "ByteLevel") {
      ASSIGN_OR_RETURN(const bool adds_space,
                       step.BoolOr("add_prefix_space", true));
      ASSIGN_OR_RETURN(const bool uses_regex, step.BoolOr("use_regex", true));
      if (adds_space || i + 1 != splits.size()) return no_name;
      if (uses_regex) patterns.emplace_back(kGpt2Pattern);
      continue;
    }
    if (type != "Split") return no_name;
    ASSIGN_OR_RETURN(const JsonPlace pattern, step.Member("pattern"));
    ASSIGN_OR_RETURN(const absl::string_view regex,
                     pattern.StringOr("Regex", ""));
    ASSIGN_OR_RETURN(const absl::string_view behavior,
                     step.StringOr("behavior", "Isolated"));
    ASSIGN_OR_RETURN(const bool invert, step.BoolOr("invert", false));
    if (regex.empty() || behavior != "Isolated" || invert) return no_name;
    patterns.emplace_back(regex);
  }
  ASSIGN_OR_RETURN(const bool ignores_merges,
                   model.BoolOr("ignore_merges", false));
  split_ = FindSplitOfPatterns(patterns, ignores_merges);
  return split_ == nullptr ? no_name : absl::OkStatus();
}

absl::Status Exporter::ReadSentencePiece(
    const JsonPlace& model, absl::Span<const JsonPlace> normalizers,
    absl::Span<const JsonPlace> splits) {
  // Spaces are marked by the normalizers, or by a step of the splits.
  const absl::Status no_way = Inexpressible(
      "its normalizer and pre_tokenizer are not those of SentencePiece's BPE, "
      "which mark spaces with U+2581 and may put one before each text");
  size_t next = 0;
  if (normalizers.size() == 2) {
    ASSIGN_OR_RETURN(const absl::string_view type, normalizers[0].Type());
    ASSIGN_OR_RETURN(const absl::string_view text,
                     normalizers[0].StringOr("prepend", ""));
    if (type != "Prepend" || text != kSpaceMark) return no_way;
    adds_space_prefix_ = true;
    ++next;
  }
  if (next < normalizers.size()) {
    ASSIGN_OR_RETURN(const absl::string_view type, normalizers[next].Type());
    if (type != "Replace" || normalizers.size() > 2 || !splits.empty()) {
      return no_way;
    }
    ASSIGN_OR_RETURN(const JsonPlace pattern,
                     normalizers[next].Member("pattern"));
    ASSIGN_OR_RETURN(const absl::string_view from,
                     pattern.StringOr("String", ""));
    ASSIGN_OR_RETURN(const absl::string_view to,
                     normalizers[next].StringOr("content", ""));
    if (from != " " || to != kSpaceMark) return no_way;
  } else {
    if (splits.size() != 1) return no_way;
    ASSIGN_OR_RETURN(const absl::string_view type, splits[0].Type());
    if (type != "Metaspace") return no_way;
    ASSIGN_OR_RETURN(const absl::string_view mark,
                     splits[0].StringOr("replacement", kSpaceMark));
    ASSIGN_OR_RETURN(const bool adds_space,
                     splits[0].BoolOr("add_prefix_space", true));
    ASSIGN_OR_RETURN(
        const absl::string_view scheme,
        splits[0].StringOr("prepend_scheme", adds_space ? "always" : "never"));
    ASSIGN_OR_RETURN(const bool is_cut, splits[0].BoolOr("split", true));
    // Its prefix is not put before text that begins with a space, that of
    // GGUF is.
    if (mark != kSpaceMark || scheme != "never" || is_cut) return no_way;
  }

  ASSIGN_OR_RETURN(const bool has_bytes, model.BoolOr("byte_fallback", false));
  int n_bytes = 0;
  static constexpr char kDigits[] = "0123456789ABCDEF";
  for (int byte = 0; has_bytes && byte < 256; ++byte) {
    const auto it = ids_.find(std::string(
        {'<', '0', 'x', kDigits[byte >> 4], kDigits[byte & 15], '>'}));
    if (it == ids_.end() || types_[it->second] != kGgufTokenNormal) continue;
    types_[it->second] = kGgufTokenByte;
    ++n_bytes;
  }
  ASSIGN_OR_RETURN(const absl::string_view unknown,
                   model.StringOr("unk_token", ""));
  const auto it = ids_.find(unknown);
  if (it != ids_.end()) {
    unknown_id_ = it->second;
    // With all bytes there is no unknown text, and the token is one that
    // callers may spell, as every special one.
    if (n_bytes < 256) types_[unknown_id_] = kGgufTokenUnknown;
  }
  return ReadScores();
}

// A GGUF file has a score for each token in place of ranks for pairs, and any
// two neighbours merge that together are a token. Merges say the same when all
// those of a token come before all those of the next one, and none is missing.
// Runs of spaces may be mixed, as in Llama 2, whose tokens for them have one
// score: what comes of them is compared afterwards, run by run.
absl::Status Exporter::ReadScores() {
  struct Ranks {
    int32_t id;
    size_t first, last;
  };
  const auto is_text = [&](int32_t id) {
    return types_[id] == kGgufTokenNormal ||
           types_[id] == kGgufTokenUserDefined;
  };
  absl::flat_hash_set<std::pair<absl::string_view, absl::string_view>> pairs;
  std::vector<Ranks> made;
  absl::flat_hash_map<int32_t, size_t> places;  // in `made`
  for (size_t rank = 0; rank < merges_.size(); ++rank) {
    const auto& [left, right] = merges_[rank];
    pairs.emplace(left, right);
    const int32_t id = ids_.at(absl::StrCat(left, right));
    const auto [it, is_new] = places.emplace(id, made.size());
    if (is_new) {
      made.push_back({id, rank, rank});
    } else {
      made[it->second].last = rank;
    }
  }
  scores_.assign(tokens_.size(), 0.0f);
  size_t last = 0;
  float score = 0;
  for (size_t i = 0; i < made.size(); ++i) {
    if (i == 0 || made[i].first > last) {
      score = -static_cast<float>(i);
    } else if (!IsSpaceRun(tokens_[made[i - 1].id]) ||
               !IsSpaceRun(tokens_[made[i].id])) {
      return Inexpressible(absl::StrCat(
          "its merges do not follow from scores of tokens (those of ",
          Shown(tokens_[made[i - 1].id]), " and ", Shown(tokens_[made[i].id]),
          " are mixed)"));
    }
    scores_[made[i].id] = score;
    last = std::max(last, made[i].last);
  }
  for (size_t id = 0; id < tokens_.size(); ++id) {
    const absl::string_view token = tokens_[id];
    if (!is_text(static_cast<int32_t>(id)) || token.empty()) continue;
    size_t cut = 0;
    for (NextCharacter(token, &cut); cut < token.size();
         NextCharacter(token, &cut)) {
      const absl::string_view halves[] = {token.substr(0, cut),
                                          token.substr(cut)};
      bool are_symbols = true;
      for (absl::string_view half : halves) {
        const auto it = ids_.find(half);
        are_symbols &=
            IsOneCharacter(half) || (it != ids_.end() && is_text(it->second));
      }
      if (are_symbols && !pairs.contains({halves[0], halves[1]})) {
        return Inexpressible(absl::StrCat(
            "its merges do not follow from scores of tokens (",
            Shown(halves[0]), " and ", Shown(halves[1]), " do not merge)"));
      }
    }
  }
  return absl::OkStatus();
}

void Exporter::SetKeys(GgufHeader* header) const {
  const bool is_byte_level = split_ != nullptr;
  header->SetString("tokenizer.ggml.model", is_byte_level ? "gpt2" : "llama");
  header->SetString("tokenizer.ggml.pre",
                    is_byte_level ? split_->name : "default");
  header->SetStringArray("tokenizer.ggml.tokens", tokens_);
  header->SetInt32Array("tokenizer.ggml.token_type", types_);
  if (is_byte_level) {
    std::vector<std::string> merges;
    merges.reserve(merges_.size());
    for (const auto& [left, right] : merges_) {
      merges.push_back(absl::StrCat(left, " ", right));
    }
    header->SetStringArray("tokenizer.ggml.merges", merges);
  } else {
    header->SetFloatArray("tokenizer.ggml.scores", scores_);
    header->SetBool("tokenizer.ggml.add_space_prefix", adds_space_prefix_);
  }
  if (tokenizer_.bos_id() >= 0) {
    header->SetUint32("tokenizer.ggml.bos_token_id", tokenizer_.bos_id());
  }
  if (!end_ids_.empty()) {
    header->SetUint32("tokenizer.ggml.eos_token_id", end_ids_[0]);
  }
  if (end_ids_.size() > 1) {
    header->SetUint32("tokenizer.ggml.eot_token_id", end_ids_[1]);
  }
  if (unknown_id_ >= 0) {
    header->SetUint32("tokenizer.ggml.unknown_token_id", unknown_id_);
  }
  header->SetBool("tokenizer.ggml.add_bos_token", tokenizer_.adds_bos());
  header->SetBool("tokenizer.ggml.add_eos_token", false);
}

// Texts that ask for much of what tokenizers differ in.
std::vector<std::string> ProbeTexts(const Tokenizer& tokenizer) {
  std::vector<std::string> texts = {
      "",
      "Hello, world! It's the year 2024; they'll pay $1,234.56 (or 10%).",
      "HELLO'S DON'T WE'VE I'LL i'D it\xc5\xbf's 'tis",
      "def f(x):\n    return x ** 2\n\n\tif not y:\r\n\t\tpass\n",
      "  leading, trailing  and   inner    spaces  ",
      "Gr\xc3\xbc\xc3\x9f"
      "e aus K\xc3\xb6ln, d\xc3\xa9j\xc3\xa0 vu, na\xc3\xafve",
      // Combining accents; Russian, Greek, Chinese, Japanese, Korean, Arabic,
      // Hindi, Thai.
      "e\xcc\x81 o\xcc\x88 \xd0\x9f\xd1\x80\xd0\xb8\xd0\xb2\xd0\xb5\xd1\x82 "
      "\xce\xbc\xce\xae\xce\xbd\xce\xb7",
      "\xe4\xbd\xa0\xe5\xa5\xbd\xe4\xb8\x96\xe7\x95\x8c "
      "\xe3\x81\x93\xe3\x82\x93\xe3\x81\xab\xe3\x81\xa1\xe3\x81\xaf "
      "\xec\x95\x88\xeb\x85\x95",
      "\xd9\x85\xd8\xb1\xd8\xad\xd8\xa8\xd8\xa7 "
      "\xe0\xa4\xa8\xe0\xa4\xae\xe0\xa4\xb8\xe0\xa5\x8d\xe0\xa4\xa4\xe0\xa5\x87"
      " "
      "\xe0\xb8\x97\xe0\xb8\xb5\xe0\xb9\x88",
      // Emoji with joiners, other spaces, digits that are not ASCII.
      "\xf0\x9f\x98\x80\xf0\x9f\x91\xa9\xe2\x80\x8d\xf0\x9f\x92\xbb a\xc2\xa0"
      "b\xe3\x80\x80"
      "c\xe2\x80\x8b"
      "d\xe1\x9a\x80",
      "\xd9\xa1\xd9\xa2\xd9\xa3\xd9\xa4 \xc2\xbd \xe2\x85\xa7 x\xc2\xb2",
      "{\"k\": [1, -2.5e+10, null]} <a href='#'>&amp;</a> @#~^|`\\",
      "\x01\x7f \xe2\x96\x81 \xef\xbf\xbd",
  };
  constexpr int kRunMax = 64;
  for (const char* unit : {" ", "\n", "\t", "\r\n", " \n", "0", "=", "ab"}) {
    std::string run;
    for (int i = 0; i < kRunMax; ++i) {
      run += unit;
      texts.push_back(run);
      texts.push_back(absl::StrCat("x", run, "y"));
    }
  }
  constexpr int kNeighbours = 32;
  std::string together;
  for (TokenId id = 0; id < tokenizer.vocab_size(); ++id) {
    const absl::string_view bytes = tokenizer.TokenBytes(id);
    if (bytes.empty() || FindInvalidUtf8(bytes) != absl::string_view::npos) {
      continue;
    }
    texts.emplace_back(bytes);
    texts.push_back(absl::StrCat("a ", bytes, bytes, bytes, " b"));
    absl::StrAppend(&together, bytes);
    if (id % kNeighbours == 0) texts.push_back(std::exchange(together, ""));
  }
  texts.push_back(std::move(together));
  return texts;
}

}  // namespace

absl::Status CompareTokenizers(const Tokenizer& a, const Tokenizer& b,
                               const std::vector<bool>& unused) {
  const auto differ = [](absl::string_view what) {
    return absl::InvalidArgumentError(absl::StrCat(what, " would differ"));
  };
  if (a.vocab_size() != b.vocab_size()) return differ("the vocabulary");
  for (TokenId id = 0; id < a.vocab_size(); ++id) {
    if (a.IsSpecial(id) != b.IsSpecial(id) ||
        (!unused[id] && a.TokenBytes(id) != b.TokenBytes(id))) {
      return differ(absl::StrCat("token ", id));
    }
  }
  std::vector<TokenId> ends_a = a.end_ids(), ends_b = b.end_ids();
  std::sort(ends_a.begin(), ends_a.end());
  std::sort(ends_b.begin(), ends_b.end());
  if (ends_a != ends_b) return differ("the tokens that end a text");
  if (a.adds_bos() != b.adds_bos() || a.bos_id() != b.bos_id()) {
    return differ("the BOS token");
  }
  for (const std::string& text : ProbeTexts(a)) {
    for (const bool parse_special : {false, true}) {
      Tokenizer::EncodeOptions options;
      options.parse_special = parse_special;
      const auto ids_a = a.Encode(text, options);
      const auto ids_b = b.Encode(text, options);
      if (ids_a.ok() != ids_b.ok() || (ids_a.ok() && *ids_a != *ids_b)) {
        return differ(absl::StrCat("the tokens of the text ", Shown(text)));
      }
      if (ids_a.ok() && a.Decode(*ids_a, true) != b.Decode(*ids_b, true)) {
        return differ(absl::StrCat("what becomes of the text ", Shown(text)));
      }
    }
  }
  return absl::OkStatus();
}

absl::Status SetTokenizerKeys(const ModelSource::TokenizerFiles& files,
                              int vocab_size, GgufHeader* header) {
  ASSIGN_OR_RETURN(
      const std::unique_ptr<Tokenizer> tokenizer,
      Tokenizer::FromJson(files.json, files.config_json, vocab_size));
  ASSIGN_OR_RETURN(const nlohmann::json document,
                   ParseJson(files.json, "tokenizer.json"));
  const JsonPlace root(&document, "tokenizer.json");
  Exporter exporter(root, *tokenizer);
  RETURN_IF_ERROR(exporter.Read());

  GgufHeader alone;
  exporter.SetKeys(&alone);
  const std::string bytes = alone.Serialize();
  ASSIGN_OR_RETURN(
      const std::unique_ptr<GgufReader> file,
      GgufReader::FromBytes(
          {reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()}));
  const auto written = Tokenizer::FromGguf(*file, vocab_size);
  if (!written.ok()) return Inexpressible(written.status().message());
  const absl::Status same =
      CompareTokenizers(*tokenizer, **written, exporter.Unused());
  if (!same.ok()) return Inexpressible(same.message());
  exporter.SetKeys(header);
  return absl::OkStatus();
}

}  // namespace tern
