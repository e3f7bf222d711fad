#include "coordinator/stop_scanner.h"

#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"

namespace tern {
namespace {

// The text that comes out of `text` cut into pieces of `piece_bytes`, then '|'
// and the stop string.
std::string Scan(const std::vector<std::string>& stops, const std::string& text,
                 size_t piece_bytes) {
  StopScanner scanner(stops);
  std::string out;
  for (size_t i = 0; i < text.size(); i += piece_bytes) {
    if (scanner.Append(text.substr(i, piece_bytes), &out)) break;
  }
  if (scanner.found().empty()) scanner.Finish(&out);
  return absl::StrCat(out, "|", scanner.found());
}

TEST(StopScanner, FindsAStopStringAcrossPieces) {
  for (size_t n : {1, 2, 3, 100}) {
    EXPECT_EQ(Scan({"END"}, "all is well EN END of it", n),
              "all is well EN |END");
  }
}

TEST(StopScanner, ShowsTextAsSoonAsItCannotBeAStopString) {
  StopScanner scanner({"abcd"});
  std::string out;
  EXPECT_FALSE(scanner.Append("xab", &out));
  EXPECT_EQ(out, "x");
  EXPECT_FALSE(scanner.Append("ca", &out));
  EXPECT_EQ(out, "xabc");
  EXPECT_FALSE(scanner.Append("b", &out));
  EXPECT_EQ(out, "xabc");
  scanner.Finish(&out);
  EXPECT_EQ(out, "xabcab");
}

TEST(StopScanner, WithoutStopStringsNothingIsHeldBack) {
  StopScanner scanner({""});
  std::string out;
  EXPECT_FALSE(scanner.Append("abc", &out));
  EXPECT_EQ(out, "abc");
}

TEST(StopScanner, TheFirstToEndWinsAndThenTheLongest) {
  EXPECT_EQ(Scan({"abcde", "cd"}, "xabcdex", 7), "xab|cd");
  EXPECT_EQ(Scan({"cd", "bcd"}, "xabcdex", 7), "xa|bcd");
}

TEST(StopScanner, OverlappingStartsAreKept) {
  EXPECT_EQ(Scan({"aab"}, "aaab", 1), "a|aab");
  EXPECT_EQ(Scan({"ababc"}, "abababc", 2), "ab|ababc");
}

TEST(StopScannerProperty, ResultDoesNotDependOnThePieces) {
  const uint32_t seed = std::random_device()();
  SCOPED_TRACE(absl::StrCat("seed=", seed));
  std::mt19937 random(seed);
  const auto word = [&random](int max_bytes) {
    std::string text(1 + random() % max_bytes, 'a');
    for (char& c : text) c = "ab"[random() % 2];
    return text;
  };
  for (int i = 0; i < 2000 && !HasFailure(); ++i) {
    const std::vector<std::string> stops = {word(6), word(6)};
    const std::string text = word(30);
    const std::string whole = Scan(stops, text, text.size());
    for (size_t n = 1; n < 6; ++n) {
      ASSERT_EQ(Scan(stops, text, n), whole)
          << text << " with " << stops[0] << ", " << stops[1];
    }
  }
}

}  // namespace
}  // namespace tern
