// SentencePiece's BPE, as GGUF files have it: tokens, scores and types.
#include <cmath>
#include <limits>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/string_view.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/gguf_reader.h"
#include "model/tokenizer.h"
#include "tests/testing/gguf_builder.h"

namespace tern {
namespace {

using testing::Bytes;
using testing::GgufBuilder;
using ::testing::HasSubstr;
using Ids = std::vector<TokenId>;

enum Type { kNormal = 1, kUnknown, kControl, kUserDefined, kUnused, kByte };

struct Vocab {
  std::vector<std::string> tokens;
  std::vector<float> scores;
  std::vector<int32_t> types;

  TokenId Add(const std::string& token, float score, Type type = kNormal) {
    tokens.push_back(token);
    scores.push_back(score);
    types.push_back(type);
    return static_cast<TokenId>(tokens.size()) - 1;
  }
  TokenId Id(absl::string_view token) const {
    for (size_t i = 0; i < tokens.size(); ++i) {
      if (tokens[i] == token) return static_cast<TokenId>(i);
    }
    ADD_FAILURE() << "no token " << token;
    return -1;
  }
  GgufBuilder Builder() const {
    return GgufBuilder()
        .SetString("tokenizer.ggml.model", "llama")
        .SetStringArray("tokenizer.ggml.tokens", tokens)
        .SetFloatArray("tokenizer.ggml.scores", scores)
        .SetInt32Array("tokenizer.ggml.token_type", types)
        .SetUint32("tokenizer.ggml.bos_token_id", 1)
        .SetUint32("tokenizer.ggml.eos_token_id", 2);
  }
};

constexpr TokenId kFirstByte = 3;

// <unk>, <s>, </s> and the 256 bytes.
Vocab WithBytes() {
  Vocab vocab;
  vocab.Add("<unk>", 0, kUnknown);
  vocab.Add("<s>", 0, kControl);
  vocab.Add("</s>", 0, kControl);
  for (int byte = 0; byte < 256; ++byte) {
    vocab.Add(absl::StrFormat("<0x%02X>", byte), 0, kByte);
  }
  return vocab;
}

Vocab Small() {
  Vocab vocab = WithBytes();
  float score = 0;
  for (const char* token : {"▁t", "he", "▁the", "in", "▁▁", "▁", "t", "h", "e",
                            "i", "n", "é", "a", "thin"}) {
    vocab.Add(token, score--);
  }
  return vocab;
}

absl::StatusOr<std::unique_ptr<Tokenizer>> Make(const GgufBuilder& builder,
                                                size_t vocab_size) {
  const Bytes bytes = builder.Build();
  auto file = GgufReader::FromBytes(bytes);
  if (!file.ok()) return file.status();
  return Tokenizer::FromGguf(**file, static_cast<int>(vocab_size));
}

std::unique_ptr<Tokenizer> MakeOrDie(const Vocab& vocab) {
  auto tokenizer = Make(vocab.Builder(), vocab.tokens.size());
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return *std::move(tokenizer);
}

Ids Encode(const Tokenizer& tokenizer, absl::string_view text,
           bool add_bos = false, bool parse_special = false) {
  auto ids = tokenizer.Encode(text, {add_bos, parse_special});
  EXPECT_TRUE(ids.ok()) << ids.status();
  return ids.ok() ? *ids : Ids();
}

TEST(SpmTokenizer, MergesByScore) {
  const Vocab vocab = Small();
  auto tokenizer = MakeOrDie(vocab);
  EXPECT_EQ(Encode(*tokenizer, "the"), Ids({vocab.Id("▁the")}));
  // "in" goes before "thin", whose halves it takes away: no "th" joins them.
  EXPECT_EQ(Encode(*tokenizer, "a thin"),
            Ids({vocab.Id("▁"), vocab.Id("a"), vocab.Id("▁t"), vocab.Id("h"),
                 vocab.Id("in")}));
  EXPECT_EQ(Encode(*tokenizer, "", true), Ids({1}));
  EXPECT_EQ(Encode(*tokenizer, "a", true),
            Ids({1, vocab.Id("▁"), vocab.Id("a")}));
  EXPECT_EQ(tokenizer->end_ids(), Ids({2}));
}

TEST(SpmTokenizer, SpellsUnknownCharactersInBytes) {
  const Vocab vocab = Small();
  auto tokenizer = MakeOrDie(vocab);
  EXPECT_EQ(Encode(*tokenizer, "é€\n"),
            Ids({vocab.Id("▁"), vocab.Id("é"), kFirstByte + 0xe2,
                 kFirstByte + 0x82, kFirstByte + 0xac, kFirstByte + '\n'}));
  EXPECT_EQ(tokenizer->TokenBytes(kFirstByte + 0xe2), "\xe2");
  EXPECT_FALSE(tokenizer->IsSpecial(kFirstByte));
  // What is spelled like a byte token is text.
  EXPECT_EQ(tokenizer->Decode(Encode(*tokenizer, "<0x41>"), false), "<0x41>");
}

TEST(SpmTokenizer, KeepsSpaces) {
  const Vocab vocab = Small();
  auto tokenizer = MakeOrDie(vocab);
  const TokenId two = vocab.Id("▁▁"), one = vocab.Id("▁");
  EXPECT_EQ(Encode(*tokenizer, " "), Ids({two}));
  EXPECT_EQ(Encode(*tokenizer, "   "), Ids({two, two}));
  EXPECT_EQ(Encode(*tokenizer, "a  a"),
            Ids({one, vocab.Id("a"), two, vocab.Id("a")}));
  // The mark itself cannot be told from a space, in any program.
  EXPECT_EQ(Encode(*tokenizer, "▁"), Ids({two}));
}

TEST(SpmTokenizer, AddsASpaceBeforeEveryPieceOfText) {
  const Vocab vocab = Small();
  auto tokenizer = MakeOrDie(vocab);
  const TokenId the = vocab.Id("▁the");
  EXPECT_EQ(Encode(*tokenizer, "the</s>the</s>", false, true),
            Ids({the, 2, the, 2}));
  auto without =
      Make(vocab.Builder().SetBool("tokenizer.ggml.add_space_prefix", false),
           vocab.tokens.size());
  ASSERT_TRUE(without.ok()) << without.status();
  EXPECT_EQ(Encode(**without, "the"), Ids({vocab.Id("t"), vocab.Id("he")}));
  EXPECT_EQ((*without)->Decode({the}, false), " the");
}

TEST(SpmTokenizer, DropsThatSpaceWhenDecodingAText) {
  const Vocab vocab = Small();
  auto tokenizer = MakeOrDie(vocab);
  const TokenId the = vocab.Id("▁the");
  EXPECT_EQ(tokenizer->Decode({the, the}, false), "the the");
  EXPECT_EQ(tokenizer->Decode({1, the}, false), "the");
  EXPECT_EQ(tokenizer->Decode({1, the}, true), "<s>the");
  EXPECT_EQ(tokenizer->Decode({vocab.Id("▁▁"), the}, false), "  the");
  EXPECT_EQ(tokenizer->Decode({vocab.Id("a"), the}, false), "a the");
  EXPECT_EQ(tokenizer->TokenBytes(the), " the");
}

TEST(SpmTokenizer, StreamsWhatFollowsAPromptWithItsSpace) {
  const Vocab vocab = Small();
  auto tokenizer = MakeOrDie(vocab);
  IncrementalDecoder answer(tokenizer.get());
  EXPECT_EQ(answer.Next(vocab.Id("▁the")), " the");
  IncrementalDecoder text(tokenizer.get(), /*begins_text=*/true);
  EXPECT_EQ(text.Next(1), "");
  EXPECT_EQ(text.Next(vocab.Id("▁the")), "the");
  EXPECT_EQ(text.Next(vocab.Id("▁the")), " the");
}

TEST(SpmTokenizer, TakesUserDefinedTokensWhole) {
  Vocab vocab = Small();
  const TokenId user = vocab.Add("the\n", 0, kUserDefined);
  auto tokenizer = MakeOrDie(vocab);
  EXPECT_EQ(Encode(*tokenizer, "in the\nhe"),
            Ids({vocab.Id("▁"), vocab.Id("in"), vocab.Id("▁"), user,
                 vocab.Id("▁"), vocab.Id("he")}));
  EXPECT_EQ(tokenizer->Decode({user}, false), "the\n");
}

// Without byte tokens the unknown token stands for what has no other, however
// long.
TEST(SpmTokenizer, FallsBackToTheUnknownToken) {
  Vocab vocab;
  vocab.Add("<unk>", 0, kUnknown);
  vocab.Add("<s>", 0, kControl);
  vocab.Add("</s>", 0, kControl);
  const TokenId mark = vocab.Add("▁", -1);
  const TokenId a = vocab.Add("a", -2);
  auto tokenizer = MakeOrDie(vocab);
  EXPECT_EQ(Encode(*tokenizer, "a€€a€"), Ids({mark, a, 0, a, 0}));
  vocab.types[0] = kControl;
  const absl::Status status =
      Make(vocab.Builder(), vocab.tokens.size()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("byte 0"));
}

// ---------------------------------------------------------------------------

// The definition, word by word: strings, and no shortcuts.
Ids EncodedSlowly(const Vocab& vocab, const std::string& text) {
  std::map<std::string, TokenId> by_text;
  for (size_t i = 0; i < vocab.tokens.size(); ++i) {
    if (vocab.types[i] == kNormal) {
      by_text.emplace(vocab.tokens[i], static_cast<TokenId>(i));
    }
  }
  const std::string marked = absl::StrReplaceAll(" " + text, {{" ", "▁"}});
  std::vector<std::string> symbols;
  for (char c : marked) {
    if ((c & 0xc0) != 0x80) symbols.emplace_back();
    symbols.back() += c;
  }
  for (;;) {
    int best = -1;
    float best_score = 0;
    for (size_t i = 0; i + 1 < symbols.size(); ++i) {
      const auto it = by_text.find(symbols[i] + symbols[i + 1]);
      if (it == by_text.end()) continue;
      const float score = vocab.scores[it->second];
      if (best < 0 || score > best_score) {
        best = static_cast<int>(i);
        best_score = score;
      }
    }
    if (best < 0) break;
    symbols[best] += symbols[best + 1];
    symbols.erase(symbols.begin() + best + 1);
  }
  Ids ids;
  for (const std::string& symbol : symbols) {
    const auto it = by_text.find(symbol);
    if (it != by_text.end()) {
      ids.push_back(it->second);
    } else {
      for (char c : symbol) ids.push_back(kFirstByte + static_cast<uint8_t>(c));
    }
  }
  return ids;
}

// Vocabularies grown by joining what is there, as training does, and some that
// no training gives: tokens whose halves are none, characters that are none,
// scores in any order and often equal.
TEST(SpmTokenizer, EqualsTheDefinitionOnRandomVocabularies) {
  const std::vector<std::string> letters = {"a", "b", "c", "é", "日", "▁"};
  for (int seed = 0; seed < 400; ++seed) {
    std::mt19937 rng(seed);
    Vocab vocab = WithBytes();
    std::vector<std::string> pieces;
    std::map<std::string, bool> taken;
    const auto add = [&](const std::string& piece) {
      if (piece.size() > 40 || taken[piece]) return;
      taken[piece] = true;
      const int spread = seed % 2 == 0 ? 5 : 1000;
      vocab.Add(piece, -static_cast<float>(rng() % spread));
      pieces.push_back(piece);
    };
    for (const std::string& letter : letters) {
      // A mark spelled in bytes would not come back as a space.
      if (letter == "▁" || rng() % 4 != 0) add(letter);
    }
    for (int i = rng() % 60; i > 0; --i) {
      std::string piece;
      for (int n = 2 + rng() % 2; n > 0; --n) {
        piece += pieces.empty() || rng() % 3 == 0
                     ? letters[rng() % letters.size()]
                     : pieces[rng() % pieces.size()];
      }
      add(piece);
    }
    auto tokenizer = MakeOrDie(vocab);
    for (int n : {0, 1, 2, 3, 5, 8, 13, 40, 120}) {
      std::string text;
      for (int i = 0; i < n; ++i) {
        const size_t pick = rng() % (letters.size() + 1);
        text += pick == letters.size() ? "€"
                : letters[pick] == "▁" ? " "
                                       : letters[pick];
      }
      const Ids expected = n == 0 ? Ids() : EncodedSlowly(vocab, text);
      ASSERT_EQ(Encode(*tokenizer, text), expected)
          << "seed " << seed << ", text " << text;
      ASSERT_EQ(tokenizer->Decode(expected, false), text);
      IncrementalDecoder decoder(tokenizer.get(), /*begins_text=*/true);
      std::string streamed;
      for (TokenId id : expected) streamed += decoder.Next(id);
      ASSERT_EQ(streamed + decoder.Finish(), text);
    }
  }
}

// A megabyte that nothing cuts, of tokens that grow.
TEST(SpmTokenizer, EncodesLongRuns) {
  Vocab vocab = WithBytes();
  vocab.Add("▁", -100);
  std::string run = "a";
  for (int i = 0; i < 10; ++i, run += run) vocab.Add(run, -i);
  auto tokenizer = MakeOrDie(vocab);
  const std::string text(1 << 20, 'a');
  const Ids ids = Encode(*tokenizer, text);
  EXPECT_EQ(ids.size(), 1u + (1 << 20) / 512);
  EXPECT_TRUE(tokenizer->Decode(ids, false) == text);
}

TEST(SpmTokenizer, RefusesBadFiles) {
  const Vocab good = Small();
  const auto message_of = [](const Vocab& vocab) {
    const absl::Status status =
        Make(vocab.Builder(), vocab.tokens.size()).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    return std::string(status.message());
  };
  Vocab bad = good;
  bad.tokens[kFirstByte] = "<0xZZ>";
  EXPECT_THAT(message_of(bad), HasSubstr("byte token 3"));
  bad = good;
  bad.tokens[270] = "\xff";
  EXPECT_THAT(message_of(bad), HasSubstr("not UTF-8 at token 270"));
  bad = good;
  bad.types[270] = 7;
  EXPECT_THAT(message_of(bad), HasSubstr("token 270 is 7"));
  bad = good;
  bad.scores.pop_back();
  EXPECT_THAT(message_of(bad), HasSubstr("tokenizer.ggml.scores has"));
  for (float score : {std::numeric_limits<float>::quiet_NaN(),
                      std::numeric_limits<float>::infinity()}) {
    bad = good;
    bad.scores[270] = score;
    EXPECT_THAT(message_of(bad), HasSubstr("token 270 is not finite"));
  }
  bad = good;
  bad.tokens[270] = std::string(1025, 'a');
  EXPECT_THAT(message_of(bad), HasSubstr("1025 bytes at token 270"));
  const absl::Status status =
      Make(good.Builder().Remove("tokenizer.ggml.scores"), good.tokens.size())
          .status();
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("tokenizer.ggml.scores"));
}

}  // namespace
}  // namespace tern
