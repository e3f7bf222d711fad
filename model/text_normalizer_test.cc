#include "model/text_normalizer.h"

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "gtest/gtest.h"
#include "model/regex.h"

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
