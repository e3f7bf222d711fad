#include "worker/slowdown.h"

#include "gtest/gtest.h"
#include "model/step_times.h"

namespace tern {
namespace {

// A layer takes 10 ms, the head 20 ms.
const StepTimes kTimes = {0.01, 0, 0, 0.02, 0};

TEST(Slowdown, IsWhatStepsTakeOverWhatTheyShould) {
  Slowdown slowdown(kTimes);
  // 50 ms were expected of the first kind, 70 ms of the second.
  for (int i = 0; i < 100; ++i) {
    slowdown.Observe(5, false, {1, 1, 0}, 0.15);
    slowdown.Observe(5, true, {1, 1, 1}, 0.21);
  }
  EXPECT_NEAR(slowdown.factor(), 3, 1e-9);
}

TEST(Slowdown, SaysNothingBeforeItHasSeenEnough) {
  Slowdown slowdown(kTimes);
  EXPECT_EQ(slowdown.factor(), 0);
  slowdown.Observe(5, false, {1, 1, 0}, 0.15);
  EXPECT_EQ(slowdown.factor(), 0);
  slowdown.Observe(5, false, {1, 1, 0}, 0.15);
  EXPECT_NEAR(slowdown.factor(), 3, 1e-9);
  // Of nothing expected nothing follows.
  Slowdown unknown({});
  for (int i = 0; i < 100; ++i) unknown.Observe(5, true, {1, 1, 1}, 1);
  EXPECT_EQ(unknown.factor(), 0);
}

TEST(Slowdown, FollowsAChangeAndForgetsAStop) {
  Slowdown slowdown(kTimes);
  for (int i = 0; i < 200; ++i) slowdown.Observe(5, false, {1, 1, 0}, 0.05);
  // A step that the system stopped for a minute counts as half a second.
  slowdown.Observe(5, false, {1, 1, 0}, 60);
  EXPECT_LT(slowdown.factor(), 1.2);
  // After 15 s of steps that take twice as long hardly anything is left of
  // those before.
  for (int i = 0; i < 150; ++i) slowdown.Observe(5, false, {1, 1, 0}, 0.1);
  EXPECT_NEAR(slowdown.factor(), 2, 0.1);
}

}  // namespace
}  // namespace tern
