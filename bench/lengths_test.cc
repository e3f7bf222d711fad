#include "bench/lengths.h"

#include <algorithm>
#include <random>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gtest/gtest.h"

namespace tern {
namespace {

std::vector<int> Draws(const char* text, int n) {
  const absl::StatusOr<Lengths> lengths = Lengths::Parse(text);
  EXPECT_TRUE(lengths.ok()) << lengths.status();
  std::mt19937_64 random(1);
  std::vector<int> draws;
  for (int i = 0; i < n; ++i) draws.push_back(lengths->Draw(random));
  std::sort(draws.begin(), draws.end());
  return draws;
}

TEST(Lengths, ANumberIsAlwaysItself) {
  EXPECT_EQ(Draws("96", 3), (std::vector<int>{96, 96, 96}));
}

TEST(Lengths, UniformTakesBothEnds) {
  const std::vector<int> draws = Draws("uniform:3-6", 4000);
  for (int length = 3; length <= 6; ++length) {
    // Binomial with mean 1000 and deviation 27.
    EXPECT_NEAR(std::count(draws.begin(), draws.end(), length), 1000, 150);
  }
}

TEST(Lengths, LogNormalHasItsMedianAndSpread) {
  const std::vector<int> draws = Draws("lognormal:200,0.5", 4001);
  EXPECT_NEAR(draws[2000], 200, 10);
  // One deviation above, at 84.1 %: 200 exp(0.5).
  EXPECT_NEAR(draws[3366], 330, 20);
}

TEST(Lengths, LogNormalKeepsToItsMaximum) {
  const std::vector<int> draws = Draws("lognormal:200,3,256", 1000);
  EXPECT_EQ(draws.back(), 256);
  EXPECT_EQ(draws.front(), 1);
}

TEST(Lengths, RefusesWhatItDoesNotKnow) {
  for (const char* text :
       {"", "0", "-1", "x", "9999999", "uniform:5", "uniform:6-3",
        "uniform:0-3", "lognormal:", "lognormal:10", "lognormal:10,-1",
        "lognormal:10,nan", "lognormal:10,1,0", "lognormal:10,1,2,3",
        "normal:10,1"}) {
    EXPECT_TRUE(absl::IsInvalidArgument(Lengths::Parse(text).status())) << text;
  }
}

}  // namespace
}  // namespace tern
