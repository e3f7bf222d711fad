#include "kernels/log_double.h"

#include <cmath>

namespace tern {
namespace {

// ln 2 as a sum of two float64: the first is the nearest, the second the
// nearest to what is left.
constexpr double kLn2High = 0x1.62e42fefa39efp-1;
constexpr double kLn2Low = 0x1.abc9e3b39803fp-56;

}  // namespace

double LogDouble(double x) {
  int exponent;
  double m = std::frexp(x, &exponent);  // [0.5, 1)
  if (m < 0x1.6a09e667f3bcdp-1) {       // sqrt(1/2)
    m *= 2;
    --exponent;
  }
  // ln m = 2 atanh(z) with |z| < 0.172: the 13th term is below 2^-66.
  const double z = (m - 1) / (m + 1);
  const double z2 = z * z;
  double series = 0;
  for (int k = 12; k >= 1; --k) series = (series + 1.0 / (2 * k + 1)) * z2;
  const double ln_m = std::fma(2 * z, series, 2 * z);
  return std::fma(exponent, kLn2High, std::fma(exponent, kLn2Low, ln_m));
}

}  // namespace tern
