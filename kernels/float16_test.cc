#include "kernels/float16.h"

#include <cmath>
#include <limits>

#include "gtest/gtest.h"

namespace tern {
namespace {

bool IsNan(uint32_t half) { return (half & 0x7fff) > 0x7c00; }

// The definition: sign, 5 bits of exponent, 10 of fraction.
double Decode(uint32_t half) {
  const double sign = half & 0x8000 ? -1 : 1;
  const int exponent = (half >> 10) & 0x1f;
  const int fraction = half & 0x3ff;
  if (exponent == 0) return sign * std::ldexp(fraction, -24);
  if (exponent == 31) return sign * std::numeric_limits<double>::infinity();
  return sign * std::ldexp(1024 + fraction, exponent - 25);
}

TEST(Float16, EveryHalfHasItsValueAndComesBack) {
  for (uint32_t half = 0; half < 0x10000; ++half) {
    const float value = HalfToFloat(static_cast<uint16_t>(half));
    if (IsNan(half)) {
      EXPECT_TRUE(std::isnan(value)) << half;
      EXPECT_TRUE(IsNan(FloatToHalf(value))) << half;
      continue;
    }
    ASSERT_EQ(value, Decode(half)) << half;
    ASSERT_EQ(FloatToHalf(value), half) << half;
  }
}

TEST(Float16, HalfWayRoundsToEvenAndItsNeighboursDoNot) {
  for (uint32_t half = 0; half < 0x7bff; ++half) {
    const float middle =
        static_cast<float>((Decode(half) + Decode(half + 1)) / 2);
    const uint32_t even = half % 2 == 0 ? half : half + 1;
    ASSERT_EQ(FloatToHalf(middle), even) << half;
    ASSERT_EQ(FloatToHalf(-middle), even | 0x8000) << half;
    ASSERT_EQ(FloatToHalf(std::nextafter(middle, 0.0f)), half);
    ASSERT_EQ(FloatToHalf(std::nextafter(middle, 1e9f)), half + 1);
  }
}

TEST(Float16, OverflowIsInfinityUnlessSaturated) {
  EXPECT_EQ(FloatToHalf(65504.0f), 0x7bff);
  EXPECT_EQ(FloatToHalf(65519.996f), 0x7bff);
  EXPECT_EQ(FloatToHalf(65520.0f), 0x7c00);
  EXPECT_EQ(FloatToHalf(-1e30f), 0xfc00);
  EXPECT_EQ(SaturatingFloatToHalf(65520.0f), 0x7bff);
  EXPECT_EQ(SaturatingFloatToHalf(std::numeric_limits<float>::infinity()),
            0x7bff);
  EXPECT_EQ(SaturatingFloatToHalf(-1e30f), 0xfbff);
  EXPECT_EQ(SaturatingFloatToHalf(std::nanf("")), 0x7bff);
}

TEST(Float16, TinyValuesRoundToSubnormalsOrSignedZero) {
  EXPECT_EQ(FloatToHalf(0x1p-24f), 0x0001);
  EXPECT_EQ(FloatToHalf(0x1p-25f), 0x0000);
  EXPECT_EQ(FloatToHalf(0x1.000002p-25f), 0x0001);
  EXPECT_EQ(FloatToHalf(-0x1p-26f), 0x8000);
  EXPECT_EQ(FloatToHalf(-std::numeric_limits<float>::denorm_min()), 0x8000);
}

}  // namespace
}  // namespace tern
