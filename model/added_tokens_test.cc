#include "model/added_tokens.h"

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "gtest/gtest.h"

namespace tern {
namespace {

// Pieces as they are, tokens as "#<id>".
std::vector<std::string> Cut(const AddedTokens& tokens, absl::string_view text,
                             bool parse_special = true) {
  std::vector<std::string> parts;
  const absl::Status status =
      tokens.Cut(text, parse_special, [&](absl::string_view piece, int32_t id) {
        parts.push_back(id < 0 ? std::string(piece) : "#" + std::to_string(id));
        return absl::OkStatus();
      });
  EXPECT_TRUE(status.ok()) << status;
  return parts;
}

using Parts = std::vector<std::string>;

TEST(AddedTokens, LeftmostThenLongestThenLowestId) {
  AddedTokens tokens;
  tokens.Add({"ab", 1});
  tokens.Add({"abc", 2});
  tokens.Add({"bcd", 3});
  tokens.Add({"abc", 0});
  tokens.Finish();
  EXPECT_EQ(Cut(tokens, "xabcdx"), Parts({"x", "#0", "dx"}));
  EXPECT_EQ(Cut(tokens, "abab"), Parts({"#1", "#1"}));
  EXPECT_EQ(Cut(tokens, ""), Parts());
  EXPECT_EQ(Cut(tokens, "ac"), Parts({"ac"}));
}

TEST(AddedTokens, SpecialOnesOnRequestOnly) {
  AddedTokens tokens;
  tokens.Add({"<s>", 1, /*is_special=*/true});
  tokens.Finish();
  EXPECT_EQ(Cut(tokens, "a<s>b", true), Parts({"a", "#1", "b"}));
  EXPECT_EQ(Cut(tokens, "a<s>b", false), Parts({"a<s>b"}));
}

TEST(AddedTokens, TakeSpacesBesideThem) {
  AddedTokens tokens;
  tokens.Add({"<l>", 1, false, /*takes_left=*/true, false});
  tokens.Add({"<r>", 2, false, false, /*takes_right=*/true});
  tokens.Finish();
  EXPECT_EQ(Cut(tokens, "a \u3000<l> b"), Parts({"a", "#1", " b"}));
  EXPECT_EQ(Cut(tokens, "a <r>\n\t b"), Parts({"a ", "#2", "b"}));
  EXPECT_EQ(Cut(tokens, "<r> <l>"), Parts({"#2", "#1"}));
  EXPECT_EQ(Cut(tokens, "  <l>  "), Parts({"#1", "  "}));
}

TEST(AddedTokens, PassOnTheFirstError) {
  AddedTokens tokens;
  tokens.Add({"x", 1});
  tokens.Finish();
  int calls = 0;
  const absl::Status status =
      tokens.Cut("axb", true, [&](absl::string_view, int32_t) {
        ++calls;
        return absl::CancelledError("enough");
      });
  EXPECT_EQ(status.code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(calls, 1);
}

}  // namespace
}  // namespace tern
