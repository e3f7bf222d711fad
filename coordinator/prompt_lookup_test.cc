#include "coordinator/prompt_lookup.h"

#include <cstdint>
#include <vector>

#include "gtest/gtest.h"

namespace tern {
namespace {

using Tokens = std::vector<int32_t>;

TEST(PromptLookup, GuessesWhatFollowedTheLatestPlaceAlike) {
  PromptLookup lookup;
  const Tokens text = {1, 2, 3, 10, 11, 1, 2, 3, 20, 21, 22, 1, 2, 3};
  EXPECT_EQ(lookup.Guess(text, 3), (Tokens{20, 21, 22}));
  EXPECT_EQ(lookup.Guess(text, 1), Tokens{20});
  EXPECT_EQ(lookup.Guess(text, 0), Tokens{});
}

TEST(PromptLookup, GuessesNothingWhereTheEndIsNew) {
  PromptLookup lookup;
  EXPECT_EQ(lookup.Guess({}, 4), Tokens{});
  EXPECT_EQ(lookup.Guess({1, 2}, 4), Tokens{});
  EXPECT_EQ(lookup.Guess({1, 2, 3}, 4), Tokens{});
  EXPECT_EQ(lookup.Guess({1, 2, 3, 4, 9, 2, 3}, 4), Tokens{});
}

TEST(PromptLookup, TheTextMayGrowBetweenCalls) {
  PromptLookup lookup;
  Tokens text = {1, 2, 3, 4, 5, 6, 7};
  EXPECT_EQ(lookup.Guess(text, 2), Tokens{});
  text.insert(text.end(), {2, 3, 4});
  EXPECT_EQ(lookup.Guess(text, 2), (Tokens{5, 6}));
  text.insert(text.end(), {8, 9, 2, 3, 4});
  EXPECT_EQ(lookup.Guess(text, 3), (Tokens{8, 9, 2}));
}

TEST(PromptLookup, CirclesGoOn) {
  PromptLookup lookup;
  EXPECT_EQ(lookup.Guess({5, 6, 5, 6, 5, 6}, 5), (Tokens{5, 6, 5, 6, 5}));
  PromptLookup same;
  EXPECT_EQ(same.Guess({7, 7, 7, 7}, 3), (Tokens{7, 7, 7}));
}

}  // namespace
}  // namespace tern
