#include "model/tokenizer.h"

#include <algorithm>
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
#include "absl/strings/string_view.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/gguf_reader.h"
#include "tests/testing/gguf_builder.h"
#include "tests/testing/tiny_model.h"

namespace tern {
namespace {

using testing::Bytes;
using ::testing::ElementsAre;
using testing::GgufBuilder;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using Ids = std::vector<TokenId>;

constexpr int kTinyVocab = 320;
constexpr TokenId kTinyBos = 318;
constexpr TokenId kTinyEos = 319;

absl::StatusOr<std::unique_ptr<Tokenizer>> Make(const GgufBuilder& builder,
                                                int vocab_size = kTinyVocab) {
  const Bytes bytes = builder.Build();
  auto file = GgufReader::FromBytes(bytes);
  if (!file.ok()) return file.status();
  // The reader and the bytes go: the tokenizer keeps no view of them.
  return Tokenizer::FromGguf(**file, vocab_size);
}

std::unique_ptr<Tokenizer> MakeOrDie(const GgufBuilder& builder,
                                     int vocab_size = kTinyVocab) {
  auto tokenizer = Make(builder, vocab_size);
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return *std::move(tokenizer);
}

Ids Encode(const Tokenizer& tokenizer, absl::string_view text,
           bool add_bos = false, bool parse_special = false) {
  auto ids = tokenizer.Encode(text, {add_bos, parse_special});
  EXPECT_TRUE(ids.ok()) << ids.status();
  return ids.ok() ? *ids : Ids();
}

// The spellings in tokenizer.ggml.tokens.
std::vector<std::string> TokensOf(const GgufBuilder& builder) {
  const Bytes bytes = builder.Build();
  const auto file = *GgufReader::FromBytes(bytes);
  const auto views = *file->GetStringArray("tokenizer.ggml.tokens");
  return std::vector<std::string>(views.begin(), views.end());
}

class DemoTokenizer : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    auto file = GgufReader::Open("models/demo/shakespeare-demo-i2_s.gguf");
    ASSERT_TRUE(file.ok()) << file.status();
    auto tokenizer = Tokenizer::FromGguf(**file, 1024);
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    tokenizer_ = std::move(tokenizer)->release();
  }
  static void TearDownTestSuite() { delete tokenizer_; }

  static const Tokenizer* tokenizer_;
};

const Tokenizer* DemoTokenizer::tokenizer_ = nullptr;

// Ids that the program which trained the model gives.
TEST_F(DemoTokenizer, GivesTheIdsThatTheModelWasTrainedOn) {
  const auto with_bos = [](absl::string_view text) {
    return Encode(*tokenizer_, text, /*add_bos=*/true);
  };
  EXPECT_EQ(Encode(*tokenizer_, "'That I know"), Ids({831, 294, 295, 511}));
  EXPECT_EQ(Encode(*tokenizer_, "IT'S"), Ids({73, 84, 39, 83}));
  EXPECT_EQ(with_bos("ROMEO:\n"), Ids({1022, 846, 268}));
  EXPECT_EQ(with_bos("First Citizen:\nBefore we proceed any further, hear me "
                     "speak.\n\nAll:\n"),
            Ids({1022, 662, 426, 925, 268, 787, 557, 335, 590, 311, 319, 820,
                 273,  368, 716, 44,  688, 322, 632, 288, 65,  275, 268}));
  EXPECT_EQ(with_bos("To be, or not to be, that is the"),
            Ids({1022, 404, 308, 44, 537, 325, 290, 308, 44, 327, 330, 267}));
  EXPECT_EQ(with_bos("In 1597, naïve Émile said: “Love!”\n"),
            Ids({1022, 660, 32,  49,  53,  57,  55,  44,  285, 97, 195, 175,
                 297,  32,  195, 137, 109, 105, 314, 601, 366, 58, 32,  226,
                 128,  156, 76,  111, 297, 33,  226, 128, 157, 10}));
  EXPECT_EQ(with_bos(""), Ids({1022}));
}

TEST_F(DemoTokenizer, KnowsItsSpecialTokens) {
  EXPECT_EQ(tokenizer_->vocab_size(), 1024);
  EXPECT_EQ(tokenizer_->bos_id(), 1022);
  EXPECT_TRUE(tokenizer_->adds_bos());
  EXPECT_THAT(tokenizer_->end_ids(), ElementsAre(1023));
  EXPECT_TRUE(tokenizer_->IsSpecial(1022));
  EXPECT_FALSE(tokenizer_->IsSpecial(1021));
  EXPECT_EQ(tokenizer_->TokenBytes(1022), "<|begin_of_text|>");
  EXPECT_EQ(tokenizer_->TokenBytes(32), " ");
  EXPECT_EQ(tokenizer_->TokenBytes(200), "\xc8");
}

TEST_F(DemoTokenizer, DecodesGreedyText) {
  EXPECT_EQ(tokenizer_->Decode({1022, 73, 476, 325, 44, 295, 476, 325, 44},
                               /*keep_special=*/false),
            "I am not, I am not,");
}

std::string RandomText(std::mt19937* rng) {
  const char* const characters[] = {"a",   "Z", "'",   "s",      "1",      " ",
                                    "\n",  "!", "é",   "日",     "😀",      "٣",
                                    "the", " ", "ing", "\u3000", "\u0301", "<"};
  std::string text;
  for (int i = (*rng)() % 40; i > 0; --i) text += characters[(*rng)() % 18];
  return text;
}

TEST_F(DemoTokenizer, DecodingUndoesEncoding) {
  std::mt19937 rng(1);
  for (int round = 0; round < 2000; ++round) {
    const std::string text = RandomText(&rng);
    const Ids ids = Encode(*tokenizer_, text, /*add_bos=*/true);
    ASSERT_EQ(tokenizer_->Decode(ids, /*keep_special=*/false), text);
  }
}

// A megabyte that no split cuts takes no longer than one of words.
TEST_F(DemoTokenizer, EncodesLongRuns) {
  for (const char* unit : {"a", " ", "!", "é", "\n", "th"}) {
    std::string text;
    while (text.size() < (1 << 20)) text += unit;
    const Ids ids = Encode(*tokenizer_, text);
    ASSERT_TRUE(tokenizer_->Decode(ids, false) == text) << unit;
  }
}

TEST(Tokenizer, RefusesTextThatIsNotUtf8) {
  auto tokenizer = MakeOrDie(testing::TinyModel({}));
  const absl::Status status =
      tokenizer->Encode("fine \xff not", {false, false}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("byte offset 5"));
  EXPECT_EQ(tokenizer->Encode("cut \xe2\x82", {false, false}).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(Tokenizer, EncodesEveryByte) {
  auto tokenizer = MakeOrDie(testing::TinyModel({}));
  for (int byte = 0; byte < 256; ++byte) {
    EXPECT_EQ(tokenizer->TokenBytes(byte),
              std::string(1, static_cast<char>(byte)));
  }
  EXPECT_EQ(Encode(*tokenizer, absl::string_view("\0\x7f", 2)), Ids({0, 127}));
  EXPECT_EQ(Encode(*tokenizer, "\u00ff"), Ids({0xc3, 0xbf}));
}

TEST(Tokenizer, AddsBosWhereModelAndCallerWantOne) {
  const GgufBuilder tiny = testing::TinyModel({});
  EXPECT_EQ(Encode(*MakeOrDie(tiny), "A", true), Ids({kTinyBos, 'A'}));
  EXPECT_EQ(Encode(*MakeOrDie(tiny), "A", false), Ids({'A'}));
  auto without = MakeOrDie(
      GgufBuilder(tiny).SetBool("tokenizer.ggml.add_bos_token", false));
  EXPECT_FALSE(without->adds_bos());
  EXPECT_EQ(Encode(*without, "A", true), Ids({'A'}));
  auto unsaid =
      MakeOrDie(GgufBuilder(tiny).Remove("tokenizer.ggml.add_bos_token"));
  EXPECT_TRUE(unsaid->adds_bos());
  auto no_bos = MakeOrDie(GgufBuilder(tiny)
                              .Remove("tokenizer.ggml.add_bos_token")
                              .Remove("tokenizer.ggml.bos_token_id"));
  EXPECT_EQ(no_bos->bos_id(), -1);
  EXPECT_EQ(Encode(*no_bos, "A", true), Ids({'A'}));
}

// Merges and splits take no notice of pieces; special tokens keep within them.
TEST(Tokenizer, EncodesPiecesAsOneTextWithSpecialTokensInThoseThatAllowThem) {
  auto tokenizer = MakeOrDie(testing::TinyModel({}));
  const auto encode = [&](std::vector<Tokenizer::Piece> pieces,
                          bool add_bos = false) {
    auto ids = tokenizer->EncodePieces(pieces, add_bos);
    EXPECT_TRUE(ids.ok()) << ids.status();
    return ids.ok() ? *ids : Ids();
  };
  const std::string end = "<|end_of_text|>";
  const auto joined = [](Ids a, const Ids& b) {
    a.insert(a.end(), b.begin(), b.end());
    return a;
  };
  const Ids plain = Encode(*tokenizer, end);
  EXPECT_EQ(encode({{end, true}}), Ids({kTinyEos}));
  EXPECT_EQ(encode({{end, false}}), plain);
  EXPECT_EQ(encode({{"", true}, {end, false}, {"", true}}), plain);
  // A spelling that a message and the template make together is text, wherever
  // it is cut; one in two pieces that both allow it is a token.
  for (size_t cut = 1; cut < end.size(); ++cut) {
    const absl::string_view a = absl::string_view(end).substr(0, cut);
    const absl::string_view b = absl::string_view(end).substr(cut);
    EXPECT_EQ(encode({{a, true}, {b, false}}), plain) << cut;
    EXPECT_EQ(encode({{a, false}, {b, true}}), plain) << cut;
    EXPECT_EQ(encode({{a, true}, {b, true}}), Ids({kTinyEos})) << cut;
  }
  EXPECT_EQ(encode({{"A", false}, {end, true}, {end, false}, {end, true}}),
            joined(joined({'A', kTinyEos}, plain), {kTinyEos}));
  // As one text, with BOS where asked for.
  const std::string text = "the thing that they think";
  for (size_t cut = 0; cut <= text.size(); ++cut) {
    const absl::string_view whole = text;
    EXPECT_EQ(encode({{whole.substr(0, cut), true}, {whole.substr(cut), false}},
                     /*add_bos=*/true),
              Encode(*tokenizer, text, /*add_bos=*/true));
  }
  EXPECT_EQ(tokenizer->EncodePieces({{"a\xe2\x82", true}, {"b", true}}, false)
                .status()
                .code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(Tokenizer, ReadsSpecialSpellingsOnRequestOnly) {
  auto tokenizer = MakeOrDie(testing::TinyModel({}));
  const std::string text = "A<|end_of_text|>B<|end_of<|begin_of_text|>";
  const Ids parsed = Encode(*tokenizer, text, false, /*parse_special=*/true);
  EXPECT_EQ(parsed.front(), 'A');
  EXPECT_EQ(parsed[1], kTinyEos);
  EXPECT_EQ(parsed[2], 'B');
  EXPECT_EQ(parsed.back(), kTinyBos);
  EXPECT_EQ(std::count(parsed.begin(), parsed.end(), kTinyEos), 1);
  const Ids plain = Encode(*tokenizer, text);
  for (TokenId id : plain) EXPECT_FALSE(tokenizer->IsSpecial(id));
  EXPECT_EQ(tokenizer->Decode(plain, false), text);
  EXPECT_EQ(tokenizer->Decode(parsed, true), text);
  EXPECT_EQ(tokenizer->Decode(parsed, false), "AB<|end_of");
}

// Token ids 300 and up with spellings and types of the test's choice.
GgufBuilder WithAdded(const std::vector<std::pair<std::string, int>>& added) {
  testing::TinyModelOptions options;
  options.vocab_size = 300;
  GgufBuilder builder = testing::TinyModel(options);
  const Bytes bytes = builder.Build();
  auto file = *GgufReader::FromBytes(bytes);
  std::vector<std::string> tokens = TokensOf(builder);
  std::vector<int32_t> types = *file->GetIntArray("tokenizer.ggml.token_type");
  for (const auto& token : added) {
    tokens.push_back(token.first);
    types.push_back(token.second);
  }
  builder.SetStringArray("tokenizer.ggml.tokens", tokens)
      .SetInt32Array("tokenizer.ggml.token_type", types);
  return builder;
}

TEST(Tokenizer, TakesTheLongestAddedToken) {
  auto tokenizer = MakeOrDie(
      WithAdded(
          {{"<a>", 4}, {"<a>b", 4}, {"<c>", 3}, {"<a>bcd", 3}, {"<a>", 4}}),
      305);
  EXPECT_EQ(Encode(*tokenizer, "<a>"), Ids({300}));
  EXPECT_EQ(Encode(*tokenizer, "<a>bc"), Ids({301, 'c'}));
  EXPECT_EQ(Encode(*tokenizer, "<a>b<a>Z"), Ids({301, 300, 'Z'}));
  // User-defined tokens always count, control tokens on request.
  EXPECT_EQ(Encode(*tokenizer, "<a>bcd").front(), 301);
  EXPECT_EQ(Encode(*tokenizer, "<a>bcd", false, true), Ids({303}));
  EXPECT_EQ(Encode(*tokenizer, "<c>", false, true), Ids({302}));
  EXPECT_EQ(Encode(*tokenizer, "<c><", false, true), Ids({302, '<'}));
  EXPECT_EQ(Encode(*tokenizer, "<a", false, true).size(), 2u);
  EXPECT_FALSE(tokenizer->IsSpecial(300));
  EXPECT_TRUE(tokenizer->IsSpecial(302));
  EXPECT_EQ(tokenizer->Decode({300, 302, 301}, false), "<a><a>b");
}

// A space before a special token is not the space before a word.
TEST(Tokenizer, SplitsWhatIsBetweenSpecialTokensByItself) {
  auto tokenizer = MakeOrDie(WithAdded({{"<x>", 4}}), 301);
  EXPECT_EQ(Encode(*tokenizer, "A  <x>B"), Ids({'A', ' ', ' ', 300, 'B'}));
}

// A control character without a token is no reason to refuse a vocabulary; to
// leave it out of a text would be wrong.
TEST(Tokenizer, RefusesTextThatItHasNoTokenFor) {
  GgufBuilder tiny = testing::TinyModel({});
  std::vector<std::string> tokens = TokensOf(tiny);
  tokens[3] = tokens['a'] + tokens[3];
  auto tokenizer =
      MakeOrDie(tiny.SetStringArray("tokenizer.ggml.tokens", tokens));
  EXPECT_EQ(Encode(*tokenizer, "a\x04"), Ids({'a', 4}));
  const absl::Status status =
      tokenizer->Encode("b\x03", {false, false}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("no token"));
}

// "he" is a token, but no merge makes it: only some kinds of model take it.
TEST(Tokenizer, OnlySomeSplitsTakeWholePiecesWithoutMerges) {
  const GgufBuilder tiny =
      testing::TinyModel({}).SetStringArray("tokenizer.ggml.merges", {});
  const std::vector<std::string> tokens = TokensOf(tiny);
  const auto he = std::find(tokens.begin(), tokens.end(), "he");
  ASSERT_NE(he, tokens.end());
  for (const char* pre : {"llama-bpe", "llama3", "llama-v3", "falcon3"}) {
    auto tokenizer =
        MakeOrDie(GgufBuilder(tiny).SetString("tokenizer.ggml.pre", pre));
    EXPECT_EQ(Encode(*tokenizer, "he"),
              Ids({static_cast<TokenId>(he - tokens.begin())}))
        << pre;
  }
  for (const char* pre : {"gpt-2", "qwen2", "falcon", "default"}) {
    GgufBuilder builder(tiny);
    builder.SetString("tokenizer.ggml.pre", pre)
        .Remove("tokenizer.ggml.add_bos_token");
    auto tokenizer = MakeOrDie(builder);
    EXPECT_EQ(Encode(*tokenizer, "he"), Ids({'h', 'e'})) << pre;
    EXPECT_FALSE(tokenizer->adds_bos()) << pre;
  }
}

TEST(Tokenizer, UnusedTokensNeverComeFromText) {
  auto tokenizer = MakeOrDie(WithAdded({{"QQ", 5}, {"WW", 2}, {"", 1}}), 303);
  EXPECT_EQ(Encode(*tokenizer, "QQ", false, true), Ids({'Q', 'Q'}));
  EXPECT_EQ(Encode(*tokenizer, "WW", false, true), Ids({'W', 'W'}));
  EXPECT_TRUE(tokenizer->IsSpecial(300));
  EXPECT_EQ(tokenizer->TokenBytes(302), "");
}

TEST(Tokenizer, EndsOnEverythingThatEnds) {
  testing::TinyModelOptions options;
  options.add_eot = true;
  const GgufBuilder tiny = testing::TinyModel(options);
  constexpr TokenId kEot = kTinyBos - 1;
  EXPECT_THAT(MakeOrDie(tiny)->end_ids(), ElementsAre(kTinyEos, kEot));
  EXPECT_THAT(
      MakeOrDie(GgufBuilder(tiny).SetUint32("tokenizer.ggml.eot_token_id", 7))
          ->end_ids(),
      ElementsAre(kTinyEos, 7, kEot));
  EXPECT_THAT(MakeOrDie(GgufBuilder(tiny).SetUint32(
                            "tokenizer.ggml.eot_token_id", kTinyEos))
                  ->end_ids(),
              ElementsAre(kTinyEos, kEot));
  EXPECT_THAT(MakeOrDie(GgufBuilder(tiny).SetUint32(
                            "tokenizer.ggml.eos_token_id", kEot))
                  ->end_ids(),
              ElementsAre(kEot, kTinyEos));
  EXPECT_THAT(
      MakeOrDie(testing::TinyModel({}).Remove("tokenizer.ggml.eos_token_id"))
          ->end_ids(),
      IsEmpty());
}

// ---------------------------------------------------------------------------

// A vocabulary of Llama 3's size; all but bytes and BOS are fillers.
GgufBuilder LikeLlama3(const char* bos_spelling) {
  const std::vector<std::string> tiny = TokensOf(testing::TinyModel({}));
  std::vector<std::string> tokens(128256);
  for (int i = 0; i < 256; ++i) tokens[i] = tiny[i];
  tokens[128000] = bos_spelling;
  std::vector<int32_t> types(tokens.size(), 5);
  std::fill(types.begin(), types.begin() + 256, 1);
  types[128000] = 3;
  return GgufBuilder()
      .SetString("tokenizer.ggml.model", "gpt2")
      .SetStringArray("tokenizer.ggml.tokens", tokens)
      .SetInt32Array("tokenizer.ggml.token_type", types)
      .SetStringArray("tokenizer.ggml.merges", {})
      .SetUint32("tokenizer.ggml.bos_token_id", 128000);
}

TEST(Tokenizer, KnowsLlama3WithoutTheNameOfItsSplit) {
  auto tokenizer = MakeOrDie(LikeLlama3("<|begin_of_text|>"), 128256);
  EXPECT_EQ(Encode(*tokenizer, "A", true), Ids({128000, 'A'}));
}

TEST(Tokenizer, GuessesNoOtherSplit) {
  const absl::Status status = Make(LikeLlama3("<s>"), 128256).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(status.message()), HasSubstr("llama-bpe"));
}

struct BadTokenizer {
  const char* name;
  std::function<void(GgufBuilder*)> spoil;
  const char* message;
  absl::StatusCode code = absl::StatusCode::kInvalidArgument;
};

void PrintTo(const BadTokenizer& bad, std::ostream* os) { *os << bad.name; }

class TokenizerBadFile : public ::testing::TestWithParam<BadTokenizer> {};

TEST_P(TokenizerBadFile, IsRefused) {
  GgufBuilder builder = testing::TinyModel({});
  GetParam().spoil(&builder);
  const absl::Status status = Make(builder).status();
  EXPECT_EQ(status.code(), GetParam().code) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(GetParam().message));
}

BadTokenizer Missing(const char* name, const std::string& key) {
  return {name, [key](GgufBuilder* b) { b->Remove("tokenizer.ggml." + key); },
          "no metadata key"};
}

BadTokenizer BadId(const char* name, const std::string& key, int64_t id) {
  return {
      name,
      [key, id](GgufBuilder* b) { b->SetInt64("tokenizer.ggml." + key, id); },
      "has ids 0 to 319"};
}

BadTokenizer BadMerge(const char* name, const char* merge) {
  return {name,
          [merge](GgufBuilder* b) {
            b->SetStringArray("tokenizer.ggml.merges", {"h e", merge});
          },
          "entry 1"};
}

// Replaces the spelling of one token.
BadTokenizer BadToken(const char* name, int id, const char* spelling,
                      const char* message) {
  return {name,
          [id, spelling](GgufBuilder* b) {
            std::vector<std::string> tokens = TokensOf(*b);
            tokens[id] = spelling;
            b->SetStringArray("tokenizer.ggml.tokens", tokens);
          },
          message};
}

BadTokenizer BadTypes(const char* name, std::vector<int32_t> types,
                      const char* message) {
  return {name,
          [types](GgufBuilder* b) {
            b->SetInt32Array("tokenizer.ggml.token_type", types);
          },
          message};
}

std::vector<BadTokenizer> BadTokenizers() {
  std::vector<int32_t> byte_type(kTinyVocab, 1), type_0(kTinyVocab, 1);
  byte_type[65] = 6;
  type_0[2] = 0;
  const auto set = [](const char* key, const char* value) {
    return [key, value](GgufBuilder* b) { b->SetString(key, value); };
  };
  const auto kUnimplemented = absl::StatusCode::kUnimplemented;
  return {
      Missing("NoModel", "model"),
      Missing("NoTokens", "tokens"),
      Missing("NoTypes", "token_type"),
      Missing("NoMerges", "merges"),
      {"NoPre", [](GgufBuilder* b) { b->Remove("tokenizer.ggml.pre"); },
       "llama-bpe", kUnimplemented},
      {"Unigram", set("tokenizer.ggml.model", "t5"), "'t5'", kUnimplemented},
      {"OtherSplit", set("tokenizer.ggml.pre", "falcon_e"),
       "'falcon_e'; Tern knows the splits llama-bpe, llama3, llama-v3, falcon3",
       kUnimplemented},
      {"TooFewTokens",
       [](GgufBuilder* b) {
         b->SetStringArray("tokenizer.ggml.tokens", {"a", "b"});
       },
       "has 2 entries"},
      {"TokensAreNumbers",
       [](GgufBuilder* b) {
         b->SetInt32Array("tokenizer.ggml.tokens", {1, 2});
       },
       "array of strings"},
      BadTypes("TooFewTypes", {1, 1}, "has 2 entries"),
      BadTypes("TypeOfByteTokens", byte_type, "token 65 is 6"),
      BadTypes("TypeOf0", type_0, "token 2 is 0"),
      BadToken("TokenOutsideTheAlphabet", 300, "a b", "at token 300"),
      BadToken("TokenOfOtherScript", 300, "日", "at token 300"),
      BadToken("TokenNotUtf8", 300, "\xc4", "at token 300"),
      BadToken("ControlTokenNotUtf8", kTinyEos, "\xff", "at token 319"),
      BadToken("ByteWithoutToken", 65, "aa", "byte 65"),
      BadMerge("MergeOfOne", "he"),
      BadMerge("MergeOfNothing", ""),
      BadMerge("MergeWithoutRight", "h "),
      BadMerge("MergeWithoutLeft", " h"),
      BadMerge("MergeOfUnknownHalves", "ZZZZ QQQQ"),
      BadMerge("MergeOfUnknownJoin", "Z Q"),
      BadMerge("MergeOutsideTheAlphabet", "h \x01"),
      BadId("BosBeyond", "bos_token_id", 320),
      BadId("BosNegative", "bos_token_id", -1),
      BadId("EosBeyond", "eos_token_id", 1 << 30),
      BadId("EotBeyond", "eot_token_id", int64_t{1} << 40),
      BadId("PaddingBeyond", "padding_token_id", 320),
      BadId("UnknownBeyond", "unknown_token_id", 320),
      {"BosWantedButNotThere",
       [](GgufBuilder* b) { b->Remove("tokenizer.ggml.bos_token_id"); },
       "no tokenizer.ggml.bos_token_id"},
      {"EosAfterPrompts",
       [](GgufBuilder* b) { b->SetBool("tokenizer.ggml.add_eos_token", true); },
       "add_eos_token", kUnimplemented},
  };
}

INSTANTIATE_TEST_SUITE_P(
    All, TokenizerBadFile, ::testing::ValuesIn(BadTokenizers()),
    [](const ::testing::TestParamInfo<BadTokenizer>& info) {
      return std::string(info.param.name);
    });

// ---------------------------------------------------------------------------

TEST(IncrementalDecoder, WaitsForTheEndOfACharacter) {
  auto tokenizer = MakeOrDie(testing::TinyModel({}));
  IncrementalDecoder decoder(tokenizer.get());
  EXPECT_EQ(decoder.Next('a'), "a");
  EXPECT_EQ(decoder.Next(0xf0), "");
  EXPECT_EQ(decoder.Next(0x9f), "");
  EXPECT_EQ(decoder.Next(kTinyEos), "");  // gives no text, breaks nothing
  EXPECT_EQ(decoder.Next(0x98), "");
  EXPECT_EQ(decoder.Next(0x80), "😀");
  EXPECT_EQ(decoder.Next(0xc3), "");
  EXPECT_EQ(decoder.Next('b'), "\uFFFDb");  // known to be wrong now
  EXPECT_EQ(decoder.Next(0xff), "\uFFFD");
  EXPECT_EQ(decoder.Finish(), "");
  EXPECT_EQ(decoder.Next(0xe2), "");
  EXPECT_EQ(decoder.Finish(), "\uFFFD");
  EXPECT_EQ(decoder.Finish(), "");
}

TEST(IncrementalDecoder, PiecesAreValidAndTogetherTheWholeText) {
  auto tokenizer = MakeOrDie(testing::TinyModel({}));
  // Bytes that begin, continue and break characters more often than chance.
  const int bytes[] = {'a',  0x80, 0x9f, 0xa0, 0xbf, 0xc3, 0xe0, 0xe2,
                       0xed, 0xef, 0xf0, 0xf4, 0xff, 0x98, 0x90, 0x8f};
  for (int seed = 0; seed < 3000; ++seed) {
    std::mt19937 rng(seed);
    Ids ids(rng() % 40);
    for (TokenId& id : ids) {
      id = rng() % 4 == 0 ? rng() % kTinyVocab : bytes[rng() % 16];
    }
    IncrementalDecoder decoder(tokenizer.get());
    std::string text;
    for (TokenId id : ids) {
      const std::string piece = decoder.Next(id);
      ASSERT_EQ(FindInvalidUtf8(piece), absl::string_view::npos)
          << "seed " << seed;
      text += piece;
    }
    text += decoder.Finish();
    ASSERT_EQ(text, tokenizer->Decode(ids, /*keep_special=*/false))
        << "seed " << seed;
  }
}

// Text comes out as soon as it can: nothing but the start of a character waits.
TEST(IncrementalDecoder, HoldsBackNoMoreThanItMust) {
  auto tokenizer = MakeOrDie(testing::TinyModel({}));
  std::mt19937 rng(1);
  for (int round = 0; round < 500; ++round) {
    const std::string text = RandomText(&rng);
    IncrementalDecoder decoder(tokenizer.get());
    std::string given, bytes;
    for (TokenId id : Encode(*tokenizer, text)) {
      given += decoder.Next(id);
      const absl::string_view token = tokenizer->TokenBytes(id);
      bytes.append(token.data(), token.size());
      const size_t invalid = FindInvalidUtf8(bytes);
      ASSERT_EQ(given, bytes.substr(0, std::min(invalid, bytes.size())));
    }
    EXPECT_EQ(given, text);
    EXPECT_EQ(decoder.Finish(), "");
  }
}

}  // namespace
}  // namespace tern
