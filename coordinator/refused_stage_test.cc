#include "coordinator/refused_stage.h"

#include <vector>

#include "absl/status/status.h"
#include "gtest/gtest.h"
#include "model/stage_plan.h"

namespace tern {
namespace {

StageRange Range(int begin, int end, int n_layers = 8) {
  return {begin, end, begin == 0, end == n_layers};
}

RefusedStage Damaged(int begin, int end) {
  return {Range(begin, end), absl::DataLossError("damaged")};
}

RefusedStage TooLarge(int begin, int end) {
  return {Range(begin, end), absl::ResourceExhaustedError("no room")};
}

TEST(RefusedStage, OnlyWhatIsAboutTheStageIsRemembered) {
  EXPECT_TRUE(IsAboutStage(absl::DataLossError("")));
  EXPECT_TRUE(IsAboutStage(absl::NotFoundError("")));
  EXPECT_TRUE(IsAboutStage(absl::FailedPreconditionError("")));
  EXPECT_TRUE(IsAboutStage(absl::ResourceExhaustedError("")));
  EXPECT_FALSE(IsAboutStage(absl::UnavailableError("")));
  EXPECT_FALSE(IsAboutStage(absl::CancelledError("")));
  EXPECT_FALSE(IsAboutStage(absl::AbortedError("")));
  EXPECT_FALSE(IsAboutStage(absl::DeadlineExceededError("")));
}

TEST(RefusedStage, SharedLayersCountAndTheWholeOfThemIsTheSameAgain) {
  const std::vector<RefusedStage> refused = {Damaged(2, 5)};
  EXPECT_EQ(RefusedLayers(refused, Range(5, 8)), 0);
  EXPECT_EQ(RefusedLayers(refused, Range(0, 2)), 0);
  EXPECT_EQ(RefusedLayers(refused, Range(0, 4)), 2);
  EXPECT_EQ(RefusedLayers(refused, Range(2, 5)), kSameAgain + 3);
  EXPECT_EQ(RefusedLayers(refused, Range(0, 8)), kSameAgain + 3);
}

TEST(RefusedStage, WhatWasTooLargeSpeaksAgainstAsManyLayersAnywhere) {
  const std::vector<RefusedStage> refused = {TooLarge(0, 4)};
  EXPECT_EQ(RefusedLayers(refused, Range(0, 3)), 0);
  EXPECT_EQ(RefusedLayers(refused, Range(3, 7)), kSameAgain);
  // The head takes memory: without it there may be room.
  EXPECT_EQ(RefusedLayers({TooLarge(4, 8)}, Range(0, 4)), 0);
  EXPECT_EQ(RefusedLayers({TooLarge(4, 8)}, Range(3, 8)), kSameAgain);
}

TEST(RefusedStage, TheSmallestOfSeveralIsKept) {
  std::vector<RefusedStage> refused;
  AddRefused(Damaged(0, 6), &refused);
  AddRefused(TooLarge(0, 6), &refused);
  AddRefused(Damaged(1, 4), &refused);
  ASSERT_EQ(refused.size(), 2u);
  EXPECT_EQ(refused[0].why.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(refused[1].range.layer_begin, 1);
  EXPECT_EQ(RefusedText(refused), "layers 0-5: no room; layers 1-3: damaged");
}

TEST(RefusedStage, TheyAreBounded) {
  std::vector<RefusedStage> refused;
  for (int i = 0; i < 3 * kMaxRefusedStages; ++i) {
    AddRefused(Damaged(i, i + 1), &refused);
  }
  EXPECT_EQ(refused.size(), kMaxRefusedStages);
  EXPECT_EQ(refused.back().range.layer_begin, 3 * kMaxRefusedStages - 1);
}

TEST(RefusedStage, AStageThatWasLoadedDisprovesWhatWasSaidOfItsParts) {
  std::vector<RefusedStage> refused = {Damaged(0, 2), Damaged(4, 8),
                                       TooLarge(0, 6)};
  DropDisproved(Range(0, 4), &refused);
  ASSERT_EQ(refused.size(), 2u);
  EXPECT_EQ(refused[0].range.layer_begin, 4);
}

}  // namespace
}  // namespace tern
