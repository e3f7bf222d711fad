#include "model/regex.h"

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "gtest/gtest.h"

namespace tern {
namespace {

using Bounds = std::vector<std::pair<size_t, size_t>>;

Bounds Find(absl::string_view pattern, absl::string_view text) {
  auto regex = Regex::Compile(pattern);
  EXPECT_TRUE(regex.ok()) << regex.status();
  Regex::Room room;
  Regex::Walk walk(regex->get(), text, &room);
  Bounds bounds;
  Regex::Match match;
  for (;;) {
    const absl::StatusOr<bool> next = walk.Next(&match);
    EXPECT_TRUE(next.ok()) << next.status();
    if (!next.ok() || !*next) return bounds;
    bounds.emplace_back(match.begin, match.end);
  }
}

TEST(Regex, WalksFromMatchToMatch) {
  EXPECT_EQ(Find("a+", "aabab"), Bounds({{0, 2}, {3, 4}}));
  EXPECT_EQ(Find("x", "aab"), Bounds());
  EXPECT_EQ(Find("x", ""), Bounds());
  EXPECT_EQ(Find("", ""), Bounds({{0, 0}}));
}

TEST(Regex, EmptyMatchesMoveByCharacters) {
  EXPECT_EQ(Find("", "aé"), Bounds({{0, 0}, {1, 1}, {3, 3}}));
  EXPECT_EQ(Find("a*", "baac"), Bounds({{0, 0}, {1, 3}, {4, 4}}));
}

TEST(Regex, SaysWhatIsWrong) {
  const absl::Status status = Regex::Compile("a(b").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(status.message().find("offset 3"), absl::string_view::npos);
}

// Takes 2^n steps; the limit is in proportion to n.
TEST(Regex, GivesUpOnExponentialPatterns) {
  auto regex = *Regex::Compile("(?:a|a)*b|(?:x+x+)+y");
  Regex::Room room;
  const std::string text(1000, 'x');
  Regex::Walk walk(regex.get(), text, &room);
  Regex::Match match;
  EXPECT_EQ(walk.Next(&match).status().code(),
            absl::StatusCode::kResourceExhausted);
}

// More to remember than compiled code has stack for.
TEST(Regex, MatchesLongRepetitionsOfGroups) {
  std::string text(1 << 17, 'a');
  EXPECT_EQ(Find("(?:a|b)*?$", text), Bounds({{0, text.size()}}));
  EXPECT_EQ(Find("(?:a|b)*", text).front(),
            std::make_pair(size_t{0}, text.size()));
}

}  // namespace
}  // namespace tern
