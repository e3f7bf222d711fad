#include "model/jinja_text.h"

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "gtest/gtest.h"

namespace tern {
namespace jinja {
namespace {

constexpr Origin kT = Origin::kTemplate;
constexpr Origin kU = Origin::kUser;
using Runs = std::vector<Text::Run>;

TEST(JinjaText, JoiningKeepsOrigins) {
  Text text("ab", kT);
  text.Append("", kU);
  text.Append("cd", kT);
  text.Append("ef", kU);
  Text other("gh", kU);
  other.Append("ij", kT);
  text.Append(other);
  EXPECT_EQ(text.bytes(), "abcdefghij");
  EXPECT_EQ(text.runs(), (Runs{{4, kT}, {8, kU}, {10, kT}}));
  EXPECT_EQ(text.OriginAt(3), kT);
  EXPECT_EQ(text.OriginAt(4), kU);
  EXPECT_EQ(text.OriginAt(9), kT);
}

TEST(JinjaText, CuttingKeepsOrigins) {
  Text text("ab", kT);
  text.Append("cd", kU);
  text.Append("ef", kT);
  for (size_t begin = 0; begin <= 6; ++begin) {
    for (size_t end = begin; end <= 6; ++end) {
      const Text part = text.Substr(begin, end);
      EXPECT_EQ(part.bytes(), text.bytes().substr(begin, end - begin));
      for (size_t i = begin; i < end; ++i) {
        EXPECT_EQ(part.OriginAt(i - begin), text.OriginAt(i)) << begin << end;
      }
    }
  }
  EXPECT_TRUE(text.Substr(3, 3).runs().empty());
}

std::string Trimmed(absl::string_view text,
                    absl::optional<absl::string_view> set) {
  const ByteRange range = TrimmedRange(text, set, true, true);
  return std::string(text.substr(range.begin, range.end - range.begin));
}

TEST(JinjaText, TrimsWholeCharacters) {
  EXPECT_EQ(Trimmed(" \t\u00a0\u3000\u2028\x1c x y\u0085 ", absl::nullopt),
            "x y");
  // U+200B is no white space, and shares bytes with characters that are.
  EXPECT_EQ(Trimmed("\u200bx\u200b", absl::nullopt), "\u200bx\u200b");
  EXPECT_EQ(Trimmed("éxèé", absl::string_view("é")), "xè");
  EXPECT_EQ(Trimmed("   ", absl::nullopt), "");
  EXPECT_EQ(Trimmed("", absl::nullopt), "");
}

TEST(JinjaText, CodePoints) {
  std::string out;
  for (uint32_t c : {0x24u, 0xa2u, 0x20acu, 0x10348u}) AppendCodePoint(c, &out);
  EXPECT_EQ(out, "$¢€𐍈");
  EXPECT_EQ(CountCharacters(out), 4u);
}

TEST(JinjaText, Finds) {
  EXPECT_EQ(FindText("abcabc", "bc", 0), 1u);
  EXPECT_EQ(FindText("abcabc", "bc", 2), 4u);
  EXPECT_EQ(FindText("abcabc", "bc", 5), absl::string_view::npos);
  EXPECT_EQ(FindText("", "a", 0), absl::string_view::npos);
  EXPECT_EQ(FindText("abc", "", 3), 3u);
}

TEST(JinjaText, CaseIsThatOfAscii) {
  EXPECT_EQ(UpperAscii("aéZ1"), "AéZ1");
  EXPECT_EQ(LowerAscii("AÉz"), "aÉz");
  EXPECT_EQ(CapitalizeAscii("uSER x"), "User x");
  EXPECT_EQ(TitleAscii("ab-cD 1e éa"), "Ab-Cd 1E éa");
}

}  // namespace
}  // namespace jinja
}  // namespace tern
