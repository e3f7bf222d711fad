#include "kernels/exp.h"

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

namespace tern {

float Exp(float x) {
  if (std::isnan(x)) return x;
  if (x < -0x1.5d589ep+6f) return 0.0f;
  if (x > 0x1.62e42ep+6f) return std::numeric_limits<float>::infinity();
  const float n = std::nearbyint(x * 0x1.715476p+0f);
  // The first step is exact: both terms are multiples of 2^-25 or of the ulp
  // of x, and the difference is below 1/2.
  float r = std::fma(n, -0x1.62e430p-1f, x);
  r = std::fma(n, 0x1.05c610p-29f, r);
  float p = 0x1.a01a02p-13f;
  p = std::fma(p, r, 0x1.6c16c2p-10f);
  p = std::fma(p, r, 0x1.111112p-7f);
  p = std::fma(p, r, 0x1.555556p-5f);
  p = std::fma(p, r, 0x1.555556p-3f);
  p = std::fma(p, r, 0.5f);
  p = std::fma(p, r, 1.0f);
  p = std::fma(p, r, 1.0f);
  // The cut-offs keep the exponent field of the result within 1..254.
  uint32_t bits;
  std::memcpy(&bits, &p, sizeof(bits));
  bits += static_cast<uint32_t>(static_cast<int32_t>(n)) << 23;
  std::memcpy(&p, &bits, sizeof(p));
  return p;
}

}  // namespace tern
