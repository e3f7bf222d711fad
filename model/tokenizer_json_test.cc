// tokenizer.json: the same ids as from GGUF, each part by itself, and files
// that are wrong.
#include <functional>
#include <memory>
#include <ostream>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/gguf_reader.h"
#include "model/tokenizer.h"
#include "nlohmann/json.hpp"
#include "tests/testing/gguf_builder.h"
#include "tests/testing/tiny_model.h"

namespace tern {
namespace {

using nlohmann::json;
using testing::Bytes;
using ::testing::HasSubstr;
using Ids = std::vector<TokenId>;

constexpr char kLlama3Pattern[] =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|)"
    R"( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

json AddedToken(int id, const std::string& content, bool special) {
  return {{"id", id},          {"content", content}, {"single_word", false},
          {"lstrip", false},   {"rstrip", false},    {"normalized", false},
          {"special", special}};
}

json ByteLevel(bool use_regex) {
  return {{"type", "ByteLevel"},
          {"add_prefix_space", false},
          {"trim_offsets", true},
          {"use_regex", use_regex}};
}

// What a GGUF file says of its tokenizer, in the form of Llama 3's
// tokenizer.json.
json FromGguf(const GgufReader& file) {
  const auto tokens = *file.GetStringArray("tokenizer.ggml.tokens");
  const auto types = *file.GetIntArray("tokenizer.ggml.token_type");
  json vocab = json::object(), added = json::array(), merges = json::array();
  for (size_t id = 0; id < tokens.size(); ++id) {
    if (types[id] == 1) {
      vocab[std::string(tokens[id])] = id;
    } else {
      added.push_back(AddedToken(static_cast<int>(id), std::string(tokens[id]),
                                 types[id] == 3));
    }
  }
  const auto list = *file.GetStringArray("tokenizer.ggml.merges");
  for (absl::string_view merge : list) merges.push_back(std::string(merge));
  const int64_t bos = *file.GetInt("tokenizer.ggml.bos_token_id");
  const std::string bos_name(tokens[bos]);
  json out;
  out["added_tokens"] = added;
  out["normalizer"] = nullptr;
  out["pre_tokenizer"] = {{"type", "Sequence"},
                          {"pretokenizers",
                           {{{"type", "Split"},
                             {"pattern", {{"Regex", kLlama3Pattern}}},
                             {"behavior", "Isolated"},
                             {"invert", false}},
                            ByteLevel(false)}}};
  out["post_processor"] = {
      {"type", "TemplateProcessing"},
      {"single",
       {{{"SpecialToken", {{"id", bos_name}, {"type_id", 0}}}},
        {{"Sequence", {{"id", "A"}, {"type_id", 0}}}}}},
      {"special_tokens",
       {{bos_name,
         {{"id", bos_name},
          {"ids", json::array({bos})},
          {"tokens", json::array({bos_name})}}}}}};
  out["decoder"] = ByteLevel(true);
  out["model"] = {{"type", "BPE"},        {"dropout", nullptr},
                  {"unk_token", nullptr}, {"ignore_merges", true},
                  {"vocab", vocab},       {"merges", merges}};
  return out;
}

std::string Config(const GgufReader& file) {
  const auto tokens = *file.GetStringArray("tokenizer.ggml.tokens");
  const int64_t eos = *file.GetInt("tokenizer.ggml.eos_token_id");
  return json({{"eos_token", std::string(tokens[eos])}}).dump();
}

absl::StatusOr<std::unique_ptr<Tokenizer>> Make(
    const json& document, int vocab_size, const std::string& config = "") {
  return Tokenizer::FromJson(document.dump(), config, vocab_size);
}

Ids Encode(const Tokenizer& tokenizer, absl::string_view text,
           bool add_bos = false, bool parse_special = false) {
  auto ids = tokenizer.Encode(text, {add_bos, parse_special});
  EXPECT_TRUE(ids.ok()) << ids.status();
  return ids.ok() ? *ids : Ids();
}

std::string RandomText(std::mt19937* rng) {
  static const char* const kParts[] = {
      "a",   "Z", "'",  "s",      "1",      " ",      "\n",
      "!",   "é", "日", "😀",      "٣",      "the",    " ",
      "ing", "<", "ſ",  "\u3000", "\u0301", "'LL",    "<|end_of_text|>",
      "  ",  "$", "²",  "\t",     "King ",  "\u180e", "<|begin_of_text|>"};
  std::string text;
  for (int i = (*rng)() % 40; i > 0; --i) text += kParts[(*rng)() % 28];
  return text;
}

TEST(JsonTokenizer, EqualsTheSameVocabularyAsGguf) {
  auto file = GgufReader::Open("models/demo/shakespeare-demo-i2_s.gguf");
  ASSERT_TRUE(file.ok()) << file.status();
  auto gguf = Tokenizer::FromGguf(**file, 1024);
  ASSERT_TRUE(gguf.ok()) << gguf.status();
  json document = FromGguf(**file);
  for (bool merges_are_pairs : {false, true}) {
    if (merges_are_pairs) {
      for (json& merge : document["model"]["merges"]) {
        const std::vector<std::string> halves =
            absl::StrSplit(merge.get<std::string>(), ' ');
        merge = halves;
      }
    }
    auto tokenizer = Make(document, 1024, Config(**file));
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    EXPECT_EQ((*tokenizer)->bos_id(), (*gguf)->bos_id());
    EXPECT_TRUE((*tokenizer)->adds_bos());
    EXPECT_EQ((*tokenizer)->end_ids(), (*gguf)->end_ids());
    for (TokenId id = 0; id < 1024; ++id) {
      EXPECT_EQ((*tokenizer)->TokenBytes(id), (*gguf)->TokenBytes(id)) << id;
      EXPECT_EQ((*tokenizer)->IsSpecial(id), (*gguf)->IsSpecial(id)) << id;
    }
    for (int seed = 0; seed < 3000; ++seed) {
      std::mt19937 rng(seed);
      const std::string text = RandomText(&rng);
      const bool parse_special = seed % 2 == 0;
      const Ids ids = Encode(**tokenizer, text, true, parse_special);
      ASSERT_EQ(ids, Encode(**gguf, text, true, parse_special))
          << "seed " << seed << ", text " << text;
      ASSERT_EQ((*tokenizer)->Decode(ids, false), (*gguf)->Decode(ids, false));
    }
  }
}

// BitNet b1.58 2B-4T calls the end of a turn its end of texts.
TEST(JsonTokenizer, EndsWithTurnsAndTexts) {
  testing::TinyModelOptions options;
  options.add_eot = true;
  const testing::TinySafetensors tiny =
      testing::TinySafetensorsModel(options, testing::TinyPacking::kPacked);
  const auto tokenizer = Tokenizer::FromJson(
      tiny.tokenizer_json, R"({"eos_token": "<|eot_id|>"})", 320);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ((*tokenizer)->end_ids(), Ids({317, 319}));
  EXPECT_EQ((*tokenizer)->eos_id(), 317);
}

TEST(JsonTokenizer, MayHaveFewerTokensThanTheModelHasRows) {
  auto file = *GgufReader::Open("models/demo/shakespeare-demo-i2_s.gguf");
  auto tokenizer = Make(FromGguf(*file), 1100);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ((*tokenizer)->vocab_size(), 1100);
  EXPECT_TRUE((*tokenizer)->IsSpecial(1099));
  EXPECT_EQ((*tokenizer)->TokenBytes(1099), "");
  // Without tokenizer_config.json the name of the token tells the end.
  EXPECT_EQ((*tokenizer)->end_ids(), Ids({1023}));
}

// ---------------------------------------------------------------------------

// A few characters, merges of them, and <0x..> for all bytes, in the form of
// Llama 2's tokenizer.json. Ids 0 to 2 are special, 3 to 258 bytes.
json SpmLike() {
  json vocab = {{"<unk>", 0}, {"<s>", 1}, {"</s>", 2}};
  for (int byte = 0; byte < 256; ++byte) {
    static constexpr char kDigits[] = "0123456789ABCDEF";
    const std::string name = {
        '<', '0', 'x', kDigits[byte >> 4], kDigits[byte & 15], '>'};
    vocab[name] = 3 + byte;
  }
  int id = 259;
  for (const char* token :
       {"▁", "t", "h", "e", "a", "he", "▁t", "▁the", "▁▁"}) {
    vocab[token] = id++;
  }
  json out;
  out["added_tokens"] = {AddedToken(0, "<unk>", true),
                         AddedToken(1, "<s>", true),
                         AddedToken(2, "</s>", true)};
  out["normalizer"] = {{"type", "Sequence"},
                       {"normalizers",
                        {{{"type", "Prepend"}, {"prepend", "▁"}},
                         {{"type", "Replace"},
                          {"pattern", {{"String", " "}}},
                          {"content", "▁"}}}}};
  out["pre_tokenizer"] = nullptr;
  out["post_processor"] = nullptr;
  out["decoder"] = {
      {"type", "Sequence"},
      {"decoders",
       {{{"type", "Replace"}, {"pattern", {{"String", "▁"}}}, {"content", " "}},
        {{"type", "ByteFallback"}},
        {{"type", "Fuse"}},
        {{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}}}}};
  out["model"] = {
      {"type", "BPE"},    {"unk_token", "<unk>"},
      {"fuse_unk", true}, {"byte_fallback", true},
      {"vocab", vocab},   {"merges", {"h e", "▁ t", "▁t he", "▁ ▁"}}};
  return out;
}

constexpr int kSpmVocab = 268;
constexpr TokenId kMark = 259, kT = 260, kH = 261, kE = 262, kA = 263,
                  kHe = 264, kThe = 266, kTwo = 267;

std::unique_ptr<Tokenizer> SpmWith(
    const std::function<void(json*)>& change = [](json*) {},
    const std::string& config = "") {
  json document = SpmLike();
  change(&document);
  auto tokenizer = Make(document, kSpmVocab, config);
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return *std::move(tokenizer);
}

TEST(JsonTokenizer, MergesCharactersAsSentencePieceDoes) {
  auto tokenizer = SpmWith();
  EXPECT_EQ(Encode(*tokenizer, "the"), Ids({kThe}));
  EXPECT_EQ(Encode(*tokenizer, "a  the"), Ids({kMark, kA, kMark, kThe}));
  EXPECT_EQ(Encode(*tokenizer, "é\n"),
            Ids({kMark, 3 + 0xc3, 3 + 0xa9, 3 + '\n'}));
  EXPECT_EQ(Encode(*tokenizer, "the</s>the", false, true),
            Ids({kThe, 2, kThe}));
  for (const char* text : {"the", " the", "a é 日 ", "", "<s>", "<0x41>"}) {
    const Ids ids = Encode(*tokenizer, text);
    EXPECT_EQ(tokenizer->Decode(ids, false), text);
  }
  EXPECT_EQ(tokenizer->end_ids(), Ids({2}));
  EXPECT_FALSE(tokenizer->adds_bos());
}

TEST(JsonTokenizer, FallsBackToTheUnknownToken) {
  auto tokenizer =
      SpmWith([](json* j) { (*j)["model"]["byte_fallback"] = false; });
  EXPECT_EQ(Encode(*tokenizer, "xyax"), Ids({kMark, 0, kA, 0}));
  tokenizer = SpmWith([](json* j) {
    (*j)["model"]["byte_fallback"] = false;
    (*j)["model"]["fuse_unk"] = false;
  });
  EXPECT_EQ(Encode(*tokenizer, "xya"), Ids({kMark, 0, 0, kA}));
}

TEST(JsonTokenizer, MetaspaceMarksSpacesToo) {
  const auto with = [](const json& fields) {
    json metaspace = {{"type", "Metaspace"}, {"replacement", "▁"}};
    metaspace.update(fields);
    return SpmWith([&](json* j) {
      (*j)["normalizer"] = nullptr;
      (*j)["pre_tokenizer"] = metaspace;
      (*j)["decoder"] = metaspace;
    });
  };
  EXPECT_EQ(Encode(*with(json::object()), "the a"), Ids({kThe, kMark, kA}));
  EXPECT_EQ(Encode(*with({{"prepend_scheme", "never"}}), "the a"),
            Ids({kT, kHe, kMark, kA}));
  EXPECT_EQ(Encode(*with({{"add_prefix_space", false}}), "the"),
            Ids({kT, kHe}));
  auto first = with({{"prepend_scheme", "first"}, {"split", false}});
  EXPECT_EQ(Encode(*first, "the</s>the", false, true), Ids({kThe, 2, kT, kHe}));
  // Split before each mark, two of them never come together.
  EXPECT_EQ(Encode(*with(json::object()), "a  a"),
            Ids({kMark, kA, kMark, kMark, kA}));
  EXPECT_EQ(Encode(*first, "a  a"), Ids({kMark, kA, kTwo, kA}));
  EXPECT_EQ(first->Decode({kThe, kThe}, false), "the the");
  EXPECT_EQ(with({{"prepend_scheme", "never"}})->Decode({kThe}, false), " the");
}

TEST(JsonTokenizer, SplitsAsToldBeforeMerging) {
  const auto ids = [](const json& steps) {
    auto tokenizer = SpmWith([&](json* j) {
      (*j)["normalizer"] = nullptr;
      (*j)["pre_tokenizer"] = {{"type", "Sequence"}, {"pretokenizers", steps}};
    });
    return Encode(*tokenizer, "he1he, he");
  };
  const TokenId one = 3 + '1', comma = 3 + ',', space = 3 + ' ';
  EXPECT_EQ(ids(json::array()), Ids({kHe, one, kHe, comma, space, kHe}));
  const json at_spaces = {{"type", "WhitespaceSplit"}};
  EXPECT_EQ(ids(json::array({at_spaces})), Ids({kHe, one, kHe, comma, kHe}));
  const json at_words = {{"type", "Whitespace"}};
  EXPECT_EQ(ids(json::array({at_words})), Ids({kHe, one, kHe, comma, kHe}));
  const json at_h = {{"type", "Split"},
                     {"pattern", {{"String", "h"}}},
                     {"behavior", "Isolated"},
                     {"invert", false}};
  EXPECT_EQ(ids(json::array({at_h})),
            Ids({kH, kE, one, kH, kE, comma, space, kH, kE}));
  EXPECT_EQ(ids({{{"type", "Digits"}, {"individual_digits", true}},
                 {{"type", "Punctuation"}, {"behavior", "Removed"}},
                 {{"type", "Split"},
                  {"pattern", {{"Regex", "\\s|1"}}},
                  {"behavior", "Removed"}}}),
            Ids({kHe, kHe, kHe}));
}

TEST(JsonTokenizer, HonoursTheFlagsOfAddedTokens) {
  const auto with = [](const std::function<void(json*)>& change) {
    json token = AddedToken(kSpmVocab, "<x>", false);
    change(&token);
    json document = SpmLike();
    document["added_tokens"].push_back(token);
    auto tokenizer = Make(document, kSpmVocab + 1);
    EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
    return *std::move(tokenizer);
  };
  const auto plain = with([](json*) {});
  EXPECT_EQ(Encode(*plain, "a <x> a"),
            Ids({kMark, kA, kMark, kSpmVocab, kTwo, kA}));
  EXPECT_EQ(plain->Decode({kMark, kA, kSpmVocab}, false), "a<x>");
  const auto strips = with([](json* t) {
    (*t)["lstrip"] = true;
    (*t)["rstrip"] = true;
  });
  EXPECT_EQ(Encode(*strips, "a <x> a"), Ids({kMark, kA, kSpmVocab, kMark, kA}));
  const auto special = with([](json* t) { (*t)["special"] = true; });
  EXPECT_EQ(Encode(*special, "<x>", false, true), Ids({kSpmVocab}));
  EXPECT_NE(Encode(*special, "<x>", false, false), Ids({kSpmVocab}));
  EXPECT_TRUE(special->IsSpecial(kSpmVocab));
  // In normalized text it is looked for as "▁<x>", as it becomes itself.
  const auto normalized = with([](json* t) { (*t)["normalized"] = true; });
  EXPECT_EQ(Encode(*normalized, "a <x>a"), Ids({kMark, kA, kSpmVocab, kA}));
  EXPECT_EQ(Encode(*normalized, "a<x>").front(), kMark);
  EXPECT_NE(Encode(*normalized, "a<x>").back(), kSpmVocab);
  // And there too it may come from the pieces alone that allow it.
  const auto both = with([](json* t) {
    (*t)["normalized"] = true;
    (*t)["special"] = true;
  });
  const auto encode = [&both](std::vector<Tokenizer::Piece> pieces) {
    return both->EncodePieces(pieces, /*add_bos=*/false).value();
  };
  EXPECT_EQ(encode({{"a", false}, {" <x>", true}, {" <x>", false}}),
            Ids({kMark, kA, kSpmVocab, kMark, 3 + '<', 3 + 'x', 3 + '>'}));
  EXPECT_EQ(encode({{"<x>", true}, {"a", false}}), Ids({kSpmVocab, kA}));
  EXPECT_EQ(encode({{"a ", false}, {"<x>", true}}),
            Ids({kMark, kA, kMark, 3 + '<', 3 + 'x', 3 + '>'}));
}

TEST(JsonTokenizer, TakesSpecialTokensFromTheConfiguration) {
  EXPECT_EQ(SpmWith([](json*) {}, R"({"bos_token": "<s>"})")->bos_id(), 1);
  auto adds = SpmWith([](json*) {},
                      R"({"bos_token": {"content": "<s>", "lstrip": false},
                          "eos_token": {"content": "<unk>"},
                          "add_bos_token": true, "add_eos_token": false})");
  EXPECT_EQ(Encode(*adds, "the", true), Ids({1, kThe}));
  EXPECT_EQ(Encode(*adds, "the", false), Ids({kThe}));
  EXPECT_EQ(adds->end_ids(), Ids({0}));
  const auto add_template = [](json* j) {
    (*j)["post_processor"] = {
        {"type", "Sequence"},
        {"processors",
         {{{"type", "TemplateProcessing"},
           {"single",
            {{{"SpecialToken", {{"id", "<s>"}}}},
             {{"Sequence", {{"id", "A"}}}}}},
           {"special_tokens", {{"<s>", {{"ids", json::array({1})}}}}}},
          {{"type", "ByteLevel"}}}}};
  };
  EXPECT_TRUE(SpmWith(add_template)->adds_bos());
  EXPECT_FALSE(
      SpmWith(add_template, R"({"add_bos_token": false})")->adds_bos());
}

// ---------------------------------------------------------------------------

struct BadJson {
  const char* name;
  std::function<void(json*)> spoil;
  const char* message;
  absl::StatusCode code = absl::StatusCode::kInvalidArgument;
  const char* config = "";
};

void PrintTo(const BadJson& bad, std::ostream* os) { *os << bad.name; }

class JsonTokenizerBadFile : public ::testing::TestWithParam<BadJson> {};

TEST_P(JsonTokenizerBadFile, IsRefused) {
  json document = SpmLike();
  GetParam().spoil(&document);
  const absl::Status status =
      Make(document, kSpmVocab, GetParam().config).status();
  EXPECT_EQ(status.code(), GetParam().code) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(GetParam().message));
}

BadJson Set(const char* name, const char* pointer, const json& value,
            const char* message,
            absl::StatusCode code = absl::StatusCode::kInvalidArgument) {
  return {
      name,
      [pointer, value](json* j) { (*j)[json::json_pointer(pointer)] = value; },
      message, code};
}

std::vector<BadJson> BadFiles() {
  const auto kUnimplemented = absl::StatusCode::kUnimplemented;
  const auto none = [](json*) {};
  const auto kInvalid = absl::StatusCode::kInvalidArgument;
  return {
      {"Array", [](json* j) { *j = json::array(); }, "is not an object"},
      {"NoModel", [](json* j) { j->erase("model"); }, "tokenizer.json.model"},
      Set("Unigram", "/model/type", "Unigram", "knows BPE", kUnimplemented),
      Set("Dropout", "/model/dropout", 0.1, "model.dropout", kUnimplemented),
      Set("Suffix", "/model/end_of_word_suffix", "</w>", "end_of_word_suffix",
          kUnimplemented),
      Set("VocabIsList", "/model/vocab", json::array(), "model.vocab"),
      Set("IdIsText", "/model/vocab/a", "7", "'a' an id that is not"),
      Set("IdIsFraction", "/model/vocab/a", 1.5, "'a' an id that is not"),
      Set("IdNegative", "/model/vocab/a", -1, "'a' the id -1"),
      Set("IdBeyond", "/model/vocab/a", kSpmVocab, "has ids 0 to 267"),
      Set("IdHuge", "/model/vocab/a", uint64_t{1} << 63, "is not an integer"),
      Set("IdTwice", "/model/vocab/a", 7, "the id 7, which is that of"),
      {"IdMissing", [](json* j) { (*j)["model"]["vocab"].erase("a"); },
       "no token of id 263"},
      {"NoTokens",
       [](json* j) {
         (*j)["model"]["vocab"] = json::object();
         (*j)["added_tokens"] = json::array();
       },
       "has no tokens"},
      Set("MergeOfOne", "/model/merges/1", "ab", "merges[1] is not two"),
      Set("MergeOfThree", "/model/merges/1", "a b c", "merges[1] is not two"),
      Set("MergeOfNothing", "/model/merges/1", " ", "merges[1] joins ''"),
      Set("MergeWithItself", "/model/merges/1", {"", "a"},
          "merges[1] joins ''"),
      Set("MergeUnknown", "/model/merges/1", "a zzz", "joins 'zzz'"),
      Set("MergeOfSpecial", "/model/merges/1", "<s> a", "joins '<s>'"),
      Set("MergeJoinUnknown", "/model/merges/1", "a a", "together are no"),
      Set("MergeTwice", "/model/merges/1", "h e", "a second time"),
      Set("MergeIsNumber", "/model/merges/1", 3, "merges[1] is not a string"),
      Set("MergeIsTriple", "/model/merges/1", {"a", "b", "c"}, "not a pair"),
      Set("MergesIsText", "/model/merges", "x", "merges is not an array"),
      Set("UnknownUnknown", "/model/unk_token", "<nope>", "model.unk_token"),
      {"TextWouldGetLost",
       [](json* j) {
         (*j)["model"]["unk_token"] = nullptr;
         (*j)["model"]["byte_fallback"] = false;
       },
       "would get lost"},
      Set("BytesMissing", "/pre_tokenizer", ByteLevel(true),
          "no token for the byte 9"),
      Set("AddedElsewhere", "/added_tokens/1/id", 5, "it has the id 1"),
      Set("AddedTwice", "/added_tokens/1/content", "<new>",
          "added_tokens[1] gives '<new>' the id 1, which is that of '<s>'"),
      Set("AddedBeyond", "/added_tokens/1", AddedToken(1 << 30, "<new>", false),
          "added_tokens[1]"),
      Set("AddedIsText", "/added_tokens/1", "x", "added_tokens[1]"),
      Set("AddedWholeWord", "/added_tokens/1/single_word", true, "single_word",
          kUnimplemented),
      Set("FlagIsNumber", "/added_tokens/1/special", 1, "special is not true"),
      Set("NormalizerUnknown", "/normalizer", {{"type", "Lowercase"}},
          "normalizer is of type 'Lowercase'", kUnimplemented),
      Set("NormalizerWithoutType", "/normalizer", {{"x", 1}},
          "normalizer.type"),
      Set("NormalizerIsText", "/normalizer", "x", "normalizer is not"),
      Set("SplitUnknown", "/pre_tokenizer", {{"type", "BertPreTokenizer"}},
          "'BertPreTokenizer'", kUnimplemented),
      Set("SplitWithoutPattern", "/pre_tokenizer", {{"type", "Split"}},
          "pattern.String"),
      Set("SplitBadPattern", "/pre_tokenizer",
          {{"type", "Split"}, {"pattern", {{"Regex", "(a"}}}},
          "pre_tokenizer.pattern.Regex: "),
      Set("SplitOtherPattern", "/pre_tokenizer",
          {{"type", "Split"}, {"pattern", {{"Regex", "[a&&b]"}}}},
          "intersection", kUnimplemented),
      Set("SplitBadBehavior", "/pre_tokenizer",
          {{"type", "Split"},
           {"pattern", {{"String", "a"}}},
           {"behavior", "x"}},
          "behavior"),
      Set("TwoByteLevels", "/pre_tokenizer",
          {{"type", "Sequence"},
           {"pretokenizers", {ByteLevel(true), ByteLevel(true)}}},
          "second ByteLevel", kUnimplemented),
      {"TooManySplits",
       [](json* j) {
         json steps = json::array();
         for (int i = 0; i < 65; ++i) {
           steps.push_back({{"type", "Digits"}});
         }
         (*j)["pre_tokenizer"] = {{"type", "Sequence"},
                                  {"pretokenizers", steps}};
       },
       "at most 64"},
      {"DeepSequence",
       [](json* j) {
         json step = {{"type", "Digits"}};
         for (int i = 0; i < 100; ++i) {
           step = {{"type", "Sequence"},
                   {"pretokenizers", json::array({step})}};
         }
         (*j)["pre_tokenizer"] = step;
       },
       "nested deeper"},
      {"TextThatGrows",
       [](json* j) {
         json steps = json::array();
         for (int i = 0; i < 60; ++i) {
           steps.push_back({{"type", "Replace"},
                            {"pattern", {{"String", "a"}}},
                            {"content", "aa"}});
         }
         (*j)["decoder"] = {{"type", "Sequence"}, {"decoders", steps}};
       },
       "longer than 65536", absl::StatusCode::kResourceExhausted},
      Set("MetaspaceTwoCharacters", "/pre_tokenizer",
          {{"type", "Metaspace"}, {"replacement", "ab"}}, "not one character"),
      Set("MetaspaceContradicts", "/pre_tokenizer",
          {{"type", "Metaspace"},
           {"prepend_scheme", "always"},
           {"add_prefix_space", false}},
          "contradicts"),
      Set("NoDecoder", "/decoder", nullptr, "decoder is missing",
          kUnimplemented),
      Set("DecoderUnknown", "/decoder", {{"type", "WordPiece"}}, "'WordPiece'",
          kUnimplemented),
      Set("StripOfEnd", "/decoder/decoders/3/stop", 1, "end of a text",
          kUnimplemented),
      Set("StripCount", "/decoder/decoders/3/start", -1, "between 0 and"),
      Set("BehindFuse", "/decoder/decoders/3", {{"type", "ByteFallback"}},
          "behind Fuse", kUnimplemented),
      Set("PostUnknown", "/post_processor", {{"type", "BertProcessing"}},
          "'BertProcessing'", kUnimplemented),
      Set("TokenBehindText", "/post_processor",
          {{"type", "TemplateProcessing"},
           {"single",
            {{{"Sequence", {{"id", "A"}}}},
             {{"SpecialToken", {{"id", "</s>"}}}}}},
           {"special_tokens", {{"</s>", {{"ids", json::array({2})}}}}}},
          "behind the text", kUnimplemented),
      Set("TemplateIdBeyond", "/post_processor",
          {{"type", "TemplateProcessing"},
           {"single",
            {{{"SpecialToken", {{"id", "<s>"}}}},
             {{"Sequence", {{"id", "A"}}}}}},
           {"special_tokens", {{"<s>", {{"ids", json::array({1 << 20})}}}}}},
          "special_tokens.<s>.ids"),
      {"ConfigIsArray", none, "tokenizer_config.json", kInvalid, "[]"},
      {"ConfigIsNoJson", none, "tokenizer_config.json is not JSON", kInvalid,
       "{"},
      {"ConfigTokenUnknown", none, "bos_token is '<no>'", kInvalid,
       R"({"bos_token": "<no>"})"},
      {"ConfigTokenIsNumber", none, "eos_token is not a string", kInvalid,
       R"({"eos_token": 2})"},
      {"BosWantedButNotThere", none, "names none", kInvalid,
       R"({"add_bos_token": true})"},
      {"EosAfterPrompts", none, "add_eos_token", kUnimplemented,
       R"({"add_eos_token": true})"},
  };
}

INSTANTIATE_TEST_SUITE_P(All, JsonTokenizerBadFile,
                         ::testing::ValuesIn(BadFiles()),
                         [](const ::testing::TestParamInfo<BadJson>& info) {
                           return std::string(info.param.name);
                         });

TEST(JsonTokenizer, RefusesTextThatIsNoJson) {
  for (const char* text : {"", "x", "[", "{\"model\": 1, \"model\": 2}"}) {
    const absl::Status status = Tokenizer::FromJson(text, "", 10).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text;
  }
  EXPECT_EQ(Tokenizer::FromJson("{}", "", 0).status().code(),
            absl::StatusCode::kInvalidArgument);
}

// Qwen's files ask for normal form C.
TEST(JsonTokenizer, ComposesText) {
  auto tokenizer = SpmWith([](json* j) {
    (*j)["normalizer"]["normalizers"].push_back({{"type", "NFC"}});
    (*j)["normalizer"]["normalizers"].erase(0);
    (*j)["normalizer"]["normalizers"].erase(0);
  });
  EXPECT_EQ(Encode(*tokenizer, "théà").size(), 6u);
  EXPECT_EQ(Encode(*tokenizer, "the\u0301a\u0300"), Encode(*tokenizer, "théà"));
  EXPECT_NE(Encode(*SpmWith(), "the\u0301"), Encode(*SpmWith(), "thé"));
}

}  // namespace
}  // namespace tern
