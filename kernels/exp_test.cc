#include "kernels/exp.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/kernels.h"
#include "kernels/kernels_testing.h"

namespace tern {
namespace {

using testing::kInf;
using testing::kNan;
using testing::kSmallest;
using testing::SameArrays;

float FromBits(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof(x));
  return x;
}

// Every 4999th float, which is prime to all powers of two.
std::vector<float> FloatsOfEveryMagnitude() {
  std::vector<float> x;
  for (uint64_t bits = 0; bits < (uint64_t{1} << 32); bits += 4999) {
    x.push_back(FromBits(static_cast<uint32_t>(bits)));
  }
  return x;
}

// Distance between the floats next to `value`, at least that of subnormals.
double UlpOf(double value) {
  int exponent;
  std::frexp(value, &exponent);
  return std::ldexp(1.0, std::max(exponent, -125) - 24);
}

TEST(Exp, IsWithinOneUlpOfTheExponential) {
  double worst = 0;
  float worst_x = 0;
  for (float x : FloatsOfEveryMagnitude()) {
    if (!(x >= -87.33654f && x <= 88.72283f)) continue;
    const double expected = std::exp(static_cast<double>(x));
    const double error = std::fabs(Exp(x) - expected) / UlpOf(expected);
    if (error > worst) {
      worst = error;
      worst_x = x;
    }
  }
  EXPECT_LT(worst, 1.0) << "at " << worst_x;
}

TEST(Exp, KnownAnswers) {
  EXPECT_EQ(Exp(0.0f), 1.0f);
  EXPECT_EQ(Exp(-0.0f), 1.0f);
  EXPECT_EQ(Exp(kSmallest), 1.0f);
  EXPECT_EQ(Exp(1.0f), 0x1.5bf0a8p+1f);
  EXPECT_TRUE(std::isnan(Exp(kNan)));
}

TEST(Exp, CutOffsLieAtTheNormalRange) {
  // The last argument with a normal result, and the first without.
  EXPECT_GE(Exp(-0x1.5d589ep+6f), 0x1p-126f);
  EXPECT_TRUE(testing::SameBits(Exp(-0x1.5d58a0p+6f), 0.0f));
  EXPECT_TRUE(testing::SameBits(Exp(-kInf), 0.0f));
  EXPECT_LT(Exp(0x1.62e42ep+6f), kInf);
  EXPECT_EQ(Exp(0x1.62e430p+6f), kInf);
  EXPECT_EQ(Exp(kInf), kInf);
}

class ExpEach : public testing::EveryIsa {};
TERN_EVERY_ISA(ExpEach);

TEST_P(ExpEach, EqualsExpForFloatsOfEveryMagnitude) {
  // The edges come first, where no tail takes them.
  std::vector<float> x = {-0x1.5d589ep+6f,
                          -0x1.5d58a0p+6f,
                          0x1.62e42ep+6f,
                          0x1.62e430p+6f,
                          kInf,
                          -kInf,
                          kNan,
                          -0.0f};
  for (int i = 0; i < 8; ++i) x.push_back(x[i]);
  for (float v : FloatsOfEveryMagnitude()) x.push_back(v);
  std::vector<float> expected;
  for (float v : x) expected.push_back(Exp(v));
  std::vector<float> actual(x.size());
  kernels().exp_each(x.data(), static_cast<int>(x.size()), actual.data());
  EXPECT_TRUE(SameArrays(expected, actual));
}

TEST_P(ExpEach, HandlesTailsInPlace) {
  for (int n = 0; n <= 33; ++n) {
    std::vector<float> x(n + 1, 0.25f);
    kernels().exp_each(x.data(), n, x.data());
    for (int i = 0; i < n; ++i) ASSERT_EQ(x[i], Exp(0.25f)) << n;
    ASSERT_EQ(x[n], 0.25f) << n;
  }
}

}  // namespace
}  // namespace tern
