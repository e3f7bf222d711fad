#include "coordinator/draft_choice.h"

#include <vector>

#include "absl/time/time.h"
#include "coordinator/step_cost.h"
#include "gtest/gtest.h"

namespace tern {
namespace {

using Counts = std::vector<int>;

// `fixed` and `per_token` for each token, in milliseconds.
StepCost Line(double fixed, double per_token) {
  StepCost cost;
  for (int n = 1; n <= 64; ++n) {
    cost.Observe(n, absl::Milliseconds(fixed + per_token * n));
  }
  return cost;
}

TEST(ChooseDrafts, WithoutAMeasureThereAreNone) {
  EXPECT_EQ(ChooseDrafts({{4, 0.9, 0.9}}, 1, 1, 100, StepCost(),
                         absl::ZeroDuration()),
            Counts{0});
}

TEST(ChooseDrafts, AllThatCostNothingAreTaken) {
  EXPECT_EQ(ChooseDrafts({{4, 0.5, 0.5}, {0, 0.9, 0.9}, {2, 0.01, 0.01}}, 3, 3,
                         100, Line(20, 0), absl::ZeroDuration()),
            (Counts{4, 0, 2}));
}

TEST(ChooseDrafts, NoneWhereTokensTakeTheirTime) {
  EXPECT_EQ(ChooseDrafts({{4, 0.95, 0.95}}, 16, 16, 100, Line(0, 3),
                         absl::ZeroDuration()),
            Counts{0});
}

// Alone a step takes 21 ms for a token: a guess at 1 ms is worth it from a
// chance of one in 21 on, and more guesses from a bit more on.
TEST(ChooseDrafts, EachHasToBeWorthItsTime) {
  const StepCost cost = Line(20, 1);
  const auto count = [&](double chance) {
    return ChooseDrafts({{1, chance, chance}}, 1, 1, 100, cost,
                        absl::ZeroDuration())[0];
  };
  EXPECT_EQ(count(0.04), 0);
  EXPECT_EQ(count(0.06), 1);
  // 0.5 + 0.25 + 0.125 ... : the fourth adds 0.0625 to 1.875 tokens in 24 ms.
  EXPECT_EQ(
      ChooseDrafts({{8, 0.5, 0.5}}, 1, 1, 100, cost, absl::ZeroDuration()),
      Counts{3});
}

TEST(ChooseDrafts, TheLikeliestOfAllGoFirst) {
  EXPECT_EQ(ChooseDrafts({{4, 0.5, 0.5}, {4, 0.9, 0.9}, {4, 0.2, 0.2}}, 3, 3, 5,
                         Line(20, 0), absl::ZeroDuration()),
            (Counts{1, 4, 0}));
}

// Two tokens in 31 ms are less than one in 21 and the next in 21.
TEST(ChooseDrafts, WhatHoldsTheStepUpMustBeMadeGood) {
  const StepCost cost = Line(20, 1);
  const auto count = [&](absl::Duration delay) {
    return ChooseDrafts({{1, 0.5, 0.5}}, 1, 1, 100, cost, delay)[0];
  };
  EXPECT_EQ(count(absl::Milliseconds(9)), 1);
  EXPECT_EQ(count(absl::Milliseconds(10)), 0);
}

}  // namespace
}  // namespace tern
