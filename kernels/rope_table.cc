#include "kernels/rope_table.h"

#include <cmath>
#include <cstdint>

#include "kernels/log_double.h"
#include "util/logging.h"

namespace tern {
namespace {

// ln 2 and pi / 2 as sums of two float64: the first is the nearest, the second
// the nearest to what is left.
constexpr double kLn2High = 0x1.62e42fefa39efp-1;
constexpr double kLn2Low = 0x1.abc9e3b39803fp-56;
constexpr double kHalfPiHigh = 0x1.921fb54442d18p+0;
constexpr double kHalfPiLow = 0x1.1a62633145c07p-54;

// REQUIRES: |x| < 700.
double ExpDouble(double x) {
  const double n = std::nearbyint(x / kLn2High);
  double r = std::fma(-n, kLn2High, x);
  r = std::fma(-n, kLn2Low, r);
  // |r| < 0.347: the 15th term is below 2^-62.
  double p = 1;
  for (int k = 14; k >= 1; --k) p = std::fma(p, r / k, 1.0);
  return std::ldexp(p, static_cast<int>(n));
}

struct CosSin {
  double cos;
  double sin;
};

// REQUIRES: 0 <= x < 2^31.
CosSin CosSinOf(double x) {
  const double n = std::nearbyint(x / kHalfPiHigh);
  double r = std::fma(-n, kHalfPiHigh, x);
  r = std::fma(-n, kHalfPiLow, r);
  // |r| < 0.786: what the series leave out is below 2^-58.
  const double r2 = r * r;
  double cos = 1;
  double sin = 1;
  for (int k = 8; k >= 1; --k) {
    cos = std::fma(cos, -r2 / ((2 * k - 1) * (2 * k)), 1.0);
    sin = std::fma(sin, -r2 / ((2 * k) * (2 * k + 1)), 1.0);
  }
  sin *= r;
  switch (static_cast<int64_t>(n) % 4) {
    case 0:
      return {cos, sin};
    case 1:
      return {-sin, cos};
    case 2:
      return {-cos, -sin};
    default:
      return {sin, -cos};
  }
}

}  // namespace

RopeTable::RopeTable(int dim, double theta, int n_positions)
    : half_(static_cast<size_t>(dim) / 2) {
  CHECK(dim > 0 && dim % 2 == 0);
  CHECK(theta > 0);
  CHECK(n_positions >= 1);
  cos_.resize(half_ * n_positions);
  sin_.resize(half_ * n_positions);
  const double ln_theta = LogDouble(theta);
  for (size_t i = 0; i < half_; ++i) {
    const double frequency = ExpDouble(-(2.0 * i / dim) * ln_theta);
    for (int position = 0; position < n_positions; ++position) {
      const CosSin value = CosSinOf(position * frequency);
      cos_[position * half_ + i] = static_cast<float>(value.cos);
      sin_[position * half_ + i] = static_cast<float>(value.sin);
    }
  }
}

}  // namespace tern
