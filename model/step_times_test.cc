#include "model/step_times.h"

#include <vector>

#include "gtest/gtest.h"

namespace tern {
namespace {

TEST(StepTimes, AStageIsItsLayersAndPerhapsTheHead) {
  const StepTimes times = {1, 0.5, 0.25, 7, 2};
  const StepLoad load = {/*n_tokens=*/4, /*n_context=*/8, /*n_rows=*/3};
  // A layer 1 + 2 + 2, the head 7 + 6.
  EXPECT_EQ(StageSeconds(times, 10, false, load), 50);
  EXPECT_EQ(StageSeconds(times, 10, true, load), 63);
  EXPECT_EQ(StageSeconds(Scaled(times, 2), 10, true, load), 126);
}

TEST(StepTimes, AreUnknownUntilALayerTakesTime) {
  EXPECT_FALSE(StepTimes().is_known());
  EXPECT_TRUE((StepTimes{1, 0, 0, 0, 0}).is_known());
  EXPECT_TRUE((StepTimes{0, 1, 0, 0, 0}).is_known());
}

TEST(FitLine, FindsTheLineThatPointsLieOn) {
  const std::vector<TimedCount> points = {{1, 5}, {8, 12}, {64, 68}};
  const TimeLine line = FitLine(points);
  EXPECT_NEAR(line.base_s, 4, 1e-9);
  EXPECT_NEAR(line.each_s, 1, 1e-9);
}

TEST(FitLine, CountsErrorsInProportion) {
  const std::vector<TimedCount> points = {{1, 10}, {100, 10}, {100, 1000}};
  const TimeLine line = FitLine(points);
  // At 100 the two points weigh 1 / 100 and 1 / 10^6: their mean is 10.099.
  EXPECT_NEAR(line.base_s + 100 * line.each_s,
              (0.01 * 10 + 1e-6 * 1000) / (0.01 + 1e-6), 1e-9);
  EXPECT_NEAR(line.base_s + line.each_s, 10, 1e-9);
}

TEST(FitLine, NoPartIsNegative) {
  const TimeLine steep = FitLine(std::vector<TimedCount>{{1, 1}, {10, 100}});
  EXPECT_EQ(steep.base_s, 0);
  EXPECT_GT(steep.each_s, 0);
  const TimeLine falling = FitLine(std::vector<TimedCount>{{1, 10}, {9, 2}});
  EXPECT_GT(falling.base_s, 0);
  EXPECT_EQ(falling.each_s, 0);
}

TEST(FitLine, OneCountGivesNoSlope) {
  const TimeLine line = FitLine(std::vector<TimedCount>{{8, 3}, {8, 3}});
  EXPECT_NEAR(line.base_s, 3, 1e-12);
  EXPECT_EQ(line.each_s, 0);
  EXPECT_EQ(FitLine({}).base_s, 0);
}

}  // namespace
}  // namespace tern
