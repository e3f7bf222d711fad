#include "util/clock.h"

#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "util/fake_clock.h"

namespace tern {
namespace {

TEST(Clock, TheSystemsNeverGoesBack) {
  absl::Time before = Clock::System()->Now();
  for (int i = 0; i < 1000; ++i) {
    const absl::Time now = Clock::System()->Now();
    ASSERT_GE(now, before);
    before = now;
  }
}

TEST(Clock, TheFakeMovesWhenTold) {
  FakeClock clock;
  const absl::Time start = clock.Now();
  EXPECT_EQ(clock.Now(), start);
  clock.Advance(absl::Milliseconds(5));
  EXPECT_EQ(clock.Now() - start, absl::Milliseconds(5));
}

}  // namespace
}  // namespace tern
