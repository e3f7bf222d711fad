#include "model/text_normalizer.h"

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "gtest/gtest.h"
#include "model/regex.h"
#include "model/text_range.h"

namespace tern {
namespace {

std::string Apply(const TextNormalizer& normalizer, absl::string_view text) {
  std::string room = "left over";
  const absl::StatusOr<absl::string_view> out = normalizer.Apply(text, &room);
  EXPECT_TRUE(out.ok()) << out.status();
  return out.ok() ? std::string(*out) : "";
}

TEST(TextNormalizer, TakesStepsInOrder) {
  TextNormalizer normalizer;
  EXPECT_EQ(Apply(normalizer, "a b"), "a b");
  normalizer.AddPrepend("_");
  normalizer.AddReplace(" ", "_");
  EXPECT_EQ(Apply(normalizer, "a  b"), "_a__b");
  EXPECT_EQ(Apply(normalizer, ""), "");
  normalizer.AddReplaceMatches(*Regex::Compile("_+"), "<>");
  EXPECT_EQ(Apply(normalizer, "a  b "), "<>a<>b<>");
}

TEST(TextNormalizer, Strips) {
  TextNormalizer left, right, both;
  left.AddStrip(true, false);
  right.AddStrip(false, true);
  both.AddStrip(true, true);
  EXPECT_EQ(Apply(left, "\u3000\n a \t"), "a \t");
  EXPECT_EQ(Apply(right, " a \u0085\t"), " a");
  EXPECT_EQ(Apply(both, " \u2003 a b\u00a0"), "a b");
  EXPECT_EQ(Apply(both, " \u3000 "), "");
}

TEST(TextNormalizer, Composes) {
  TextNormalizer normalizer;
  normalizer.AddNormalFormC();
  EXPECT_EQ(Apply(normalizer, "Grüße, 日本"), "Grüße, 日本");
  EXPECT_EQ(Apply(normalizer, "ae\u0301"), "aé");
  TextNormalizer short_texts(6);
  short_texts.AddNormalFormC();
  std::string room;
  // Three bytes that become six, and six that become twelve.
  EXPECT_EQ(Apply(short_texts, "\u0958"), "\u0915\u093c");
  EXPECT_EQ(short_texts.Apply("\u0958\u0958", &room).status().code(),
            absl::StatusCode::kResourceExhausted);
}

// The normalized text, its ranges in brackets.
std::string ApplyRanges(const TextNormalizer& normalizer,
                        absl::string_view text, TextRanges ranges) {
  std::string room;
  const absl::StatusOr<absl::string_view> out =
      normalizer.Apply(text, &room, &ranges);
  EXPECT_TRUE(out.ok()) << out.status();
  std::string marked;
  size_t pos = 0;
  for (const TextRange& range : ranges) {
    EXPECT_LE(pos, range.begin);
    EXPECT_LE(range.begin, range.end);
    EXPECT_LE(range.end, out->size());
    marked += std::string(out->substr(pos, range.begin - pos)) + "[" +
              std::string(out->substr(range.begin, range.end - range.begin)) +
              "]";
    pos = range.end;
  }
  return marked + std::string(out->substr(pos));
}

TEST(TextNormalizer, MovesRangesAlong) {
  TextNormalizer none, prepend, replace, strip, several;
  prepend.AddPrepend("_");
  replace.AddReplace("ab", "xyz");
  strip.AddStrip(true, true);
  several.AddPrepend("_");
  several.AddReplace(" ", "__");
  several.AddReplaceMatches(*Regex::Compile("_b?"), "");
  EXPECT_EQ(ApplyRanges(none, "abcd", {{1, 2}}), "a[b]cd");
  EXPECT_EQ(ApplyRanges(prepend, "abcd", {{0, 2}, {3, 4}}), "[_ab]c[d]");
  EXPECT_EQ(ApplyRanges(prepend, "abcd", {{1, 4}}), "_a[bcd]");
  EXPECT_EQ(ApplyRanges(replace, "1ab2ab3", {{1, 4}}), "1[xyz2]xyz3");
  EXPECT_EQ(ApplyRanges(replace, "1ab2ab3", {{0, 7}}), "[1xyz2xyz3]");
  // What comes of bytes on either side of an edge is not in the range.
  EXPECT_EQ(ApplyRanges(replace, "1ab2ab3", {{2, 5}}), "1xyz[2]xyz3");
  EXPECT_EQ(ApplyRanges(replace, "1ab2", {{0, 2}, {3, 4}}), "[1]xyz[2]");
  EXPECT_EQ(ApplyRanges(replace, "ab", {{0, 1}}), "[]xyz");
  EXPECT_EQ(ApplyRanges(strip, "  a b ", {{1, 3}, {5, 6}}), "[a] b[]");
  EXPECT_EQ(ApplyRanges(several, "a bc", {{0, 3}}), "[a]c");
  EXPECT_EQ(ApplyRanges(several, "a c", {{0, 1}, {2, 3}}), "[a][c]");

  TextNormalizer composed;
  composed.AddNormalFormC();
  // What stays keeps its range, whatever happens beside it.
  EXPECT_EQ(ApplyRanges(composed, "<a>Яe\u0301", {{0, 3}}), "[<a>]Я\u00e9");
  EXPECT_EQ(ApplyRanges(composed, "<a>e\u0301<b>", {{0, 3}, {6, 9}}),
            "[<a>]\u00e9[<b>]");
  // A letter of one part with an accent of another is of neither.
  EXPECT_EQ(ApplyRanges(composed, "xe\u0301", {{0, 2}}), "[x]\u00e9");
}

// Sixty-four steps that double a text would fill any memory.
TEST(TextNormalizer, LimitsWhatComesOut) {
  TextNormalizer normalizer(1000);
  for (size_t i = 0; i < TextNormalizer::kStepsMax; ++i) {
    normalizer.AddReplace("a", "aa");
  }
  std::string room;
  EXPECT_EQ(normalizer.Apply("a", &room).status().code(),
            absl::StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace tern
