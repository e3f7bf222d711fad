#include "model/pretokenizer.h"

#include <random>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "gtest/gtest.h"
#include "model/named_splits.h"
#include "model/regex.h"

namespace tern {
namespace {

using Pieces = std::vector<std::string>;

using Behavior = Pretokenizer::Behavior;

Pieces SplitBy(const Pretokenizer& pretokenizer, absl::string_view text,
               bool begins_text = true) {
  Pieces pieces;
  const absl::Status status = pretokenizer.Split(
      text, begins_text,
      [&](absl::string_view piece) { pieces.emplace_back(piece); });
  EXPECT_TRUE(status.ok()) << status;
  return pieces;
}

Pretokenizer BySteps(const std::vector<const char*>& patterns,
                     Behavior behavior = Behavior::kIsolated,
                     bool invert = false) {
  Pretokenizer pretokenizer;
  for (const char* pattern : patterns) {
    pretokenizer.AddSplit(*Regex::Compile(pattern), behavior, invert);
  }
  return pretokenizer;
}

Pieces SplitBy(const char* pattern, Behavior behavior, bool invert,
               absl::string_view text) {
  return SplitBy(BySteps({pattern}, behavior, invert), text);
}

TEST(Pretokenizer, WithoutStepsLeavesTheText) {
  EXPECT_EQ(SplitBy(Pretokenizer(), "a b"), Pieces({"a b"}));
  EXPECT_EQ(SplitBy(Pretokenizer(), ""), Pieces());
}

// The table of behaviors: the same text by each.
TEST(Pretokenizer, DoesWithMatchesWhatItIsTold) {
  const auto by = [](Behavior behavior, absl::string_view text) {
    return SplitBy("-", behavior, false, text);
  };
  const char kText[] = "the-final--countdown";
  EXPECT_EQ(by(Behavior::kRemoved, kText),
            Pieces({"the", "final", "countdown"}));
  EXPECT_EQ(by(Behavior::kIsolated, kText),
            Pieces({"the", "-", "final", "-", "-", "countdown"}));
  EXPECT_EQ(by(Behavior::kMergedWithPrevious, kText),
            Pieces({"the-", "final-", "-", "countdown"}));
  EXPECT_EQ(by(Behavior::kMergedWithNext, kText),
            Pieces({"the", "-final", "-", "-countdown"}));
  EXPECT_EQ(by(Behavior::kContiguous, kText),
            Pieces({"the", "-", "final", "--", "countdown"}));

  EXPECT_EQ(by(Behavior::kRemoved, "--"), Pieces());
  EXPECT_EQ(by(Behavior::kMergedWithPrevious, "-a-"), Pieces({"-", "a-"}));
  EXPECT_EQ(by(Behavior::kMergedWithNext, "-a-"), Pieces({"-a", "-"}));
}

TEST(Pretokenizer, SplitsByWhatIsBetweenMatches) {
  EXPECT_EQ(SplitBy("[a-z]+", Behavior::kRemoved, true, "ab, cd!"),
            Pieces({"ab", "cd"}));
  EXPECT_EQ(SplitBy("[a-z]+", Behavior::kMergedWithPrevious, true, "ab, cd!"),
            Pieces({"ab, ", "cd!"}));
}

TEST(Pretokenizer, EmptyMatchesCut) {
  EXPECT_EQ(SplitBy("(?=b)", Behavior::kIsolated, false, "abab"),
            Pieces({"a", "ba", "b"}));
}

TEST(Pretokenizer, TakesOneStepAfterAnother) {
  const Pretokenizer steps = BySteps({"[.,]", "[0-9]+", "[0-9]{2}"});
  EXPECT_EQ(SplitBy(steps, "ab12345,6.c"),
            Pieces({"ab", "12", "34", "5", ",", "6", ".", "c"}));
}

TEST(Pretokenizer, PutsASpaceBeforePieces) {
  Pretokenizer steps = BySteps({"-"}, Behavior::kRemoved);
  steps.AddSpacePrefix();
  EXPECT_EQ(SplitBy(steps, "a- b-c"), Pieces({" a", " b", " c"}));
}

TEST(Pretokenizer, MarksSpaces) {
  for (bool begins_text : {true, false}) {
    Pretokenizer always, first, never;
    always.AddMetaspace("_", Pretokenizer::Prefix::kAlways);
    first.AddMetaspace("_", Pretokenizer::Prefix::kFirst);
    never.AddMetaspace("_", Pretokenizer::Prefix::kNever);
    EXPECT_EQ(SplitBy(always, "a b", begins_text), Pieces({"_a_b"}));
    EXPECT_EQ(SplitBy(always, " a", begins_text), Pieces({"_a"}));
    EXPECT_EQ(SplitBy(first, "a b", begins_text),
              Pieces({begins_text ? "_a_b" : "a_b"}));
    EXPECT_EQ(SplitBy(never, "a b", begins_text), Pieces({"a_b"}));
  }
  // Only the piece at the beginning is the first.
  Pretokenizer steps = BySteps({"-"}, Behavior::kRemoved);
  steps.AddMetaspace("_", Pretokenizer::Prefix::kFirst);
  EXPECT_EQ(SplitBy(steps, "a-b"), Pieces({"_a", "b"}));
}

// Behind the step a byte is one character, of whichever kind its spelling is:
// the second byte of Ä is spelled as a letter, that of ² as a number.
TEST(Pretokenizer, ShowsLaterStepsTheSpellingOfBytes) {
  Pretokenizer steps;
  steps.AddByteLevel();
  steps.AddSplit(*Regex::Compile("\\p{N}"), Behavior::kIsolated, false);
  EXPECT_EQ(SplitBy(steps, "x1y²z"), Pieces({"x", "1", "y\xc2", "\xb2", "z"}));
  Pretokenizer spaces;
  spaces.AddByteLevel();
  spaces.AddSplit(*Regex::Compile("Ġ"), Behavior::kRemoved, false);
  EXPECT_EQ(SplitBy(spaces, "a b\nĠ"), Pieces({"a", "b\nĠ"}));
}

// The split of Llama 3, of which most tests below are.
const Pretokenizer& Splitter() {
  static const Pretokenizer* const kSplitter = [] {
    auto* splitter = new Pretokenizer;
    AddNamedSplit(*FindNamedSplit("llama-bpe"), splitter);
    return splitter;
  }();
  return *kSplitter;
}

Pieces Split(absl::string_view text) { return SplitBy(Splitter(), text); }

TEST(Pretokenizer, KeepsASpaceWithTheWordBehindIt) {
  EXPECT_EQ(Split(""), Pieces());
  EXPECT_EQ(Split("Hello world"), Pieces({"Hello", " world"}));
  EXPECT_EQ(Split("Hello, world!"), Pieces({"Hello", ",", " world", "!"}));
  EXPECT_EQ(Split("a  b   c"), Pieces({"a", " ", " b", "  ", " c"}));
  EXPECT_EQ(Split("end   "), Pieces({"end", "   "}));
}

TEST(Pretokenizer, CutsContractionsInEitherCase) {
  EXPECT_EQ(Split("I'll don't"), Pieces({"I", "'ll", " don", "'t"}));
  EXPECT_EQ(Split("IT'S"), Pieces({"IT", "'S"}));
  EXPECT_EQ(Split("'That"), Pieces({"'T", "hat"}));
  EXPECT_EQ(Split("'rE'vE'M'lL'd"), Pieces({"'rE", "'vE", "'M", "'lL", "'d"}));
  EXPECT_EQ(Split("'xyz"), Pieces({"'xyz"}));
  // Unicode folds the long s to s.
  EXPECT_EQ(Split("'ſa"), Pieces({"'ſ", "a"}));
}

TEST(Pretokenizer, CutsNumbersByThree) {
  EXPECT_EQ(Split("1234567"), Pieces({"123", "456", "7"}));
  EXPECT_EQ(Split(" 12"), Pieces({" ", "12"}));
  EXPECT_EQ(Split("x1y"), Pieces({"x", "1", "y"}));
  EXPECT_EQ(Split("٣٤٥٦"), Pieces({"٣٤٥", "٦"}));
  EXPECT_EQ(Split("½Ⅷ"), Pieces({"½Ⅷ"}));
}

TEST(Pretokenizer, LetsOneSignLeadAWord) {
  EXPECT_EQ(Split("(word)"), Pieces({"(word", ")"}));
  EXPECT_EQ(Split("((word"), Pieces({"((", "word"}));
  EXPECT_EQ(Split("\tword"), Pieces({"\tword"}));
  EXPECT_EQ(Split(" ...\n\nx"), Pieces({" ...\n\n", "x"}));
  EXPECT_EQ(Split("\nword"), Pieces({"\n", "word"}));
}

TEST(Pretokenizer, KeepsLineEndsTogether) {
  EXPECT_EQ(Split("a\n\n\nb"), Pieces({"a", "\n\n\n", "b"}));
  EXPECT_EQ(Split("a \r\n \n  b"), Pieces({"a", " \r\n \n", " ", " b"}));
}

TEST(Pretokenizer, KnowsLettersOfEveryScript) {
  EXPECT_EQ(Split("Grüße Ωμέγα"), Pieces({"Grüße", " Ωμέγα"}));
  EXPECT_EQ(Split("日本語 テスト"), Pieces({"日本語", " テスト"}));
  // A combining mark is no letter.
  EXPECT_EQ(Split("e\u0301a"), Pieces({"e", "\u0301a"}));
  EXPECT_EQ(Split("hi 😀!"), Pieces({"hi", " 😀!"}));
}

// White space is what has the Unicode property of that name.
TEST(Pretokenizer, KnowsSpacesOfEveryKind) {
  for (const char* space :
       {"\t", "\v", "\f", " ", "\u0085", "\u00a0", "\u1680", "\u2000", "\u200a",
        "\u2028", "\u2029", "\u202f", "\u205f", "\u3000"}) {
    const std::string s = space;
    EXPECT_EQ(Split("a" + s + s + "1"), Pieces({"a", s, s, "1"})) << s;
  }
  for (const char* other : {"\u180e", "\u200b", "\u2060", "\ufeff"}) {
    const std::string s = other;
    EXPECT_EQ(Split("a" + s + s + "1"), Pieces({"a", s + s, "1"})) << s;
  }
}

// None may exhaust the matcher's stack or limits.
TEST(Pretokenizer, SplitsLongRunsOfAnything) {
  for (const char* unit :
       {"a", " ", "\n", "!", "1", "é", "😀", " \t", "\u3000", " \u3000", "'s",
        "\r", "\u0301", "日", "!\n", "a "}) {
    std::string text;
    while (text.size() < (1 << 20)) text += unit;
    for (const char* end : {"", "x", "!", "\n"}) {
      std::string joined;
      const absl::Status status =
          Splitter().Split(text + end, true, [&](absl::string_view piece) {
            joined.append(piece.data(), piece.size());
          });
      ASSERT_TRUE(status.ok()) << unit << ": " << status;
      ASSERT_TRUE(joined == text + end) << unit;
    }
  }
}

TEST(Pretokenizer, PiecesAreTheText) {
  const char* const characters[] = {"a",  "Z", "'",  "s",      "1", " ",
                                    "\n", "!", "\r", "é",      "Ω", "日",
                                    "😀",  "٣", "\t", "\u3000", "ſ", "\u0301"};
  std::mt19937 rng(1);
  for (int round = 0; round < 2000; ++round) {
    std::string text;
    for (int i = rng() % 30; i > 0; --i) text += characters[rng() % 18];
    std::string joined;
    for (const std::string& piece : Split(text)) {
      ASSERT_FALSE(piece.empty());
      joined += piece;
    }
    ASSERT_EQ(joined, text);
  }
}

}  // namespace
}  // namespace tern
