#include "kernels/log_double.h"

#include <cmath>
#include <random>

#include "gtest/gtest.h"

namespace tern {
namespace {

TEST(LogDouble, IsTheLogarithm) {
  std::mt19937_64 random(3);
  std::uniform_real_distribution<double> exponent(-40, 63);
  for (int i = 0; i < 100000; ++i) {
    const double x = std::exp2(exponent(random));
    const long double want = std::log(static_cast<long double>(x));
    const double got = LogDouble(x);
    ASSERT_NEAR(got, static_cast<double>(want),
                1e-15 * std::fmax(1, std::fabs(got)))
        << x;
  }
}

TEST(LogDouble, OfOneIsPlusZero) {
  EXPECT_EQ(LogDouble(1), 0);
  EXPECT_FALSE(std::signbit(LogDouble(1)));
}

}  // namespace
}  // namespace tern
