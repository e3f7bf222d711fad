#include "coordinator/step_cost.h"

#include "absl/time/time.h"
#include "gtest/gtest.h"

namespace tern {
namespace {

// Bound by memory up to 8 tokens, then by arithmetic.
absl::Duration Truth(int n_tokens) {
  return absl::Milliseconds(n_tokens <= 8 ? 20 : 20 + 2 * (n_tokens - 8));
}

TEST(StepCost, KnowsNothingAtFirst) {
  StepCost cost;
  EXPECT_FALSE(cost.is_known());
  EXPECT_EQ(cost.Predict(10), absl::ZeroDuration());
  EXPECT_EQ(cost.LeastPerToken(), absl::ZeroDuration());
}

TEST(StepCost, DrawsLinesBetweenWhatItHasSeen) {
  StepCost cost;
  cost.Observe(8, Truth(8));
  EXPECT_EQ(cost.Predict(8), absl::Milliseconds(20));
  EXPECT_EQ(cost.Predict(1), absl::Milliseconds(20)) << "no less than known";
  EXPECT_EQ(cost.Predict(16), absl::Milliseconds(40)) << "in proportion";
  cost.Observe(64, Truth(64));
  EXPECT_NEAR(absl::ToDoubleMilliseconds(cost.Predict(36)), 76, 1e-6);
  EXPECT_NEAR(absl::ToDoubleMilliseconds(cost.Predict(100)), 204, 1e-6);
}

TEST(StepCost, SaysHowManyTokensFitATime) {
  StepCost cost;
  for (const int n : {1, 2, 4, 8, 16, 32, 64}) cost.Observe(n, Truth(n));
  EXPECT_EQ(cost.TokensWithin(absl::Milliseconds(40), 512), 18);
  EXPECT_EQ(cost.TokensWithin(absl::Milliseconds(40), 12), 12);
  EXPECT_EQ(cost.TokensWithin(absl::Milliseconds(1), 512), 1);
  EXPECT_NEAR(absl::ToDoubleMilliseconds(cost.LeastPerToken()), 132 / 64.0,
              1e-6);
}

TEST(StepCost, FollowsChanges) {
  StepCost cost;
  for (int i = 0; i < 50; ++i) cost.Observe(4, absl::Milliseconds(10));
  for (int i = 0; i < 20; ++i) cost.Observe(4, absl::Milliseconds(30));
  EXPECT_GT(cost.Predict(4), absl::Milliseconds(29));
  EXPECT_LT(cost.Predict(4), absl::Milliseconds(30));
}

TEST(StepCost, ForgetsSoonWhatWasSlowOnce) {
  StepCost cost;
  cost.Observe(4, absl::Seconds(1));
  for (int i = 0; i < 3; ++i) cost.Observe(4, absl::Milliseconds(10));
  EXPECT_LT(cost.Predict(4), absl::Milliseconds(20));
}

TEST(StepCost, LargerStepsAreNeverTakenForCheaper) {
  StepCost cost;
  cost.Observe(8, absl::Milliseconds(30));
  cost.Observe(16, absl::Milliseconds(20));
  EXPECT_EQ(cost.Predict(1000), absl::Milliseconds(20));
}

}  // namespace
}  // namespace tern
