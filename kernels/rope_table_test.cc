#include "kernels/rope_table.h"

#include <cmath>

#include "gtest/gtest.h"

namespace tern {
namespace {

// libm, in long double, where this machine's is good for more than float64.
double Angle(int position, int i, int dim, double theta) {
  return static_cast<double>(
      position * std::pow(static_cast<long double>(theta), -2.0L * i / dim));
}

double HalfUlp(double value) {
  int exponent;
  std::frexp(value, &exponent);
  return std::ldexp(0.5, exponent - 24);
}

void ExpectClose(int dim, double theta, int n_positions, int step) {
  const RopeTable table(dim, theta, n_positions);
  for (int position = 0; position < n_positions; position += step) {
    for (int i = 0; i < dim / 2; ++i) {
      const double angle = Angle(position, i, dim, theta);
      // Frequencies are good to 1e-14, functions to 1e-15; then one rounding.
      const double before = 1e-14 * angle + 1e-15;
      const double c = std::cos(angle);
      const double s = std::sin(angle);
      ASSERT_NEAR(table.cos(position)[i], c, 1.001 * HalfUlp(c) + before)
          << "dim " << dim << " theta " << theta << " position " << position
          << " i " << i;
      ASSERT_NEAR(table.sin(position)[i], s, 1.001 * HalfUlp(s) + before)
          << "dim " << dim << " theta " << theta << " position " << position
          << " i " << i;
    }
  }
}

TEST(RopeTable, MatchesTheMathematicsLibrary) {
  ExpectClose(128, 10000.0, 4096, 1);
  ExpectClose(128, 500000.0, 4096, 7);
  ExpectClose(64, 1e6, 131072, 997);
  ExpectClose(100, 12345.678, 300, 1);
  ExpectClose(2, 10000.0, 1000, 1);
}

TEST(RopeTable, OddThetasStayInRange) {
  ExpectClose(16, 1.0, 50, 1);
  ExpectClose(16, 1.5, 50, 1);
  ExpectClose(16, 0x1p30, 50, 1);
}

TEST(RopeTable, PositionZeroDoesNotRotate) {
  const RopeTable table(8, 10000.0, 1);
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(table.cos(0)[i], 1.0f);
    EXPECT_EQ(table.sin(0)[i], 0.0f);
  }
}

// Another machine must compute these very bits.
TEST(RopeTable, KnownAnswers) {
  const RopeTable table(128, 500000.0, 4096);
  EXPECT_EQ(table.cos(1)[0], 0x1.14a280p-1f);
  EXPECT_EQ(table.sin(1)[0], 0x1.aed548p-1f);
  EXPECT_EQ(table.cos(4095)[0], static_cast<float>(std::cos(4095.0)));
  EXPECT_EQ(table.sin(4095)[0], static_cast<float>(std::sin(4095.0)));
}

}  // namespace
}  // namespace tern
