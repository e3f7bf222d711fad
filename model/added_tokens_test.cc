#include "model/added_tokens.h"

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "gtest/gtest.h"
#include "model/text_range.h"

namespace tern {
namespace {

// Pieces as they are, tokens as "#<id>".
std::vector<std::string> CutRanges(const AddedTokens& tokens,
                                   absl::string_view text,
                                   const TextRanges& ranges) {
  std::vector<std::string> parts;
  const absl::Status status =
      tokens.Cut(text, ranges, [&](absl::string_view piece, int32_t id) {
        parts.push_back(id < 0 ? std::string(piece) : "#" + std::to_string(id));
        return absl::OkStatus();
      });
  EXPECT_TRUE(status.ok()) << status;
  return parts;
}

std::vector<std::string> Cut(const AddedTokens& tokens, absl::string_view text,
                             bool parse_special = true) {
  TextRanges ranges;
  if (parse_special) ranges.push_back({0, text.size()});
  return CutRanges(tokens, text, ranges);
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

TEST(AddedTokens, SpecialOnesWithinTheirRangesOnly) {
  AddedTokens tokens;
  tokens.Add({"<s>", 1, /*is_special=*/true});
  tokens.Add({"<s><s>", 2, /*is_special=*/true});
  tokens.Add({"--", 3});
  tokens.Add({">-", 4});
  tokens.Finish();
  const std::string text = "<s><s>--<s>";
  // 0..5 the first two, 6 and 7 the dashes, 8 on the last.
  EXPECT_EQ(CutRanges(tokens, text, {{0, 11}}), Parts({"#2", "#3", "#1"}));
  EXPECT_EQ(CutRanges(tokens, text, {{0, 3}}),
            Parts({"#1", "<s", "#4", "-<s>"}));
  EXPECT_EQ(CutRanges(tokens, text, {{0, 5}}),
            Parts({"#1", "<s", "#4", "-<s>"}));
  EXPECT_EQ(CutRanges(tokens, text, {{3, 6}}),
            Parts({"<s>", "#1", "#3", "<s>"}));
  EXPECT_EQ(CutRanges(tokens, text, {{1, 6}, {8, 11}}),
            Parts({"<s>", "#1", "#3", "#1"}));
  EXPECT_EQ(CutRanges(tokens, text, {{1, 5}, {9, 11}}),
            Parts({"<s><s", "#4", "-<s>"}));
  // Nor does a token that is not special reach into a range or out of it.
  EXPECT_EQ(CutRanges(tokens, text, {{0, 7}}), Parts({"#2", "--<s>"}));
  EXPECT_EQ(CutRanges(tokens, text, {{7, 11}}),
            Parts({"<s><s", "#4", "-", "#1"}));
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
      tokens.Cut("axb", {}, [&](absl::string_view, int32_t) {
        ++calls;
        return absl::CancelledError("enough");
      });
  EXPECT_EQ(status.code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(calls, 1);
}

}  // namespace
}  // namespace tern
