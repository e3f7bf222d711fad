#include "bench/statistics.h"

#include <vector>

#include "gtest/gtest.h"

namespace tern {
namespace {

TEST(Percentile, IsTheNearestRank) {
  std::vector<float> hundred;
  for (int i = 1; i <= 100; ++i) hundred.push_back(i);
  EXPECT_EQ(Percentile(hundred, 0.5), 50);
  EXPECT_EQ(Percentile(hundred, 0.9), 90);
  EXPECT_EQ(Percentile(hundred, 0.99), 99);
  EXPECT_EQ(Percentile(hundred, 1), 100);
  // 0.9 * 10 is above 9 in binary.
  EXPECT_EQ(Percentile({1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, 0.9), 9);
  EXPECT_EQ(Percentile({1, 2}, 0.5), 1);
  EXPECT_EQ(Percentile({1, 2, 3}, 0.5), 2);
  EXPECT_EQ(Percentile({7}, 0.01), 7);
}

TEST(Summarize, SortsAndSumsUp) {
  std::vector<float> numbers = {4, 1, 3, 2};
  const Summary summary = Summarize(&numbers);
  EXPECT_EQ(numbers, (std::vector<float>{1, 2, 3, 4}));
  EXPECT_EQ(summary.count, 4);
  EXPECT_EQ(summary.mean, 2.5);
  EXPECT_EQ(summary.p50, 2);
  EXPECT_EQ(summary.p90, 4);
  EXPECT_EQ(summary.p99, 4);
  EXPECT_EQ(summary.max, 4);
}

TEST(Summarize, NothingIsAllZero) {
  std::vector<float> none;
  const Summary summary = Summarize(&none);
  EXPECT_EQ(summary.count, 0);
  EXPECT_EQ(summary.max, 0);
}

}  // namespace
}  // namespace tern
