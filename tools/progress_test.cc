#include "tools/progress.h"

#include "absl/time/time.h"
#include "gtest/gtest.h"

namespace tern {
namespace {

TEST(ProgressLine, ShowsShareSpeedAndTimeLeft) {
  EXPECT_EQ(ProgressLine("writing", "B", int64_t{256} << 20, int64_t{1} << 30,
                         absl::Seconds(2)),
            "writing [######..................]  25%  128 MiB/s  6s left");
  EXPECT_EQ(ProgressLine("scoring", "tokens", 50, 50, absl::Seconds(5)),
            "scoring [########################] 100%  10 tokens/s");
}

TEST(ProgressLine, NothingDoneOrNothingToDoIsNoDivisionByZero) {
  EXPECT_EQ(ProgressLine("x", "B", 0, 10, absl::Seconds(1)),
            "x [........................]   0%");
  EXPECT_EQ(ProgressLine("x", "B", 0, 0, absl::ZeroDuration()),
            "x [........................]   0%");
  EXPECT_EQ(ProgressLine("x", "B", 20, 10, absl::Seconds(1)).substr(0, 32),
            "x [########################] 100");
}

}  // namespace
}  // namespace tern
