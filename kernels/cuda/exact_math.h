#ifndef KERNELS_CUDA_EXACT_MATH_H_
#define KERNELS_CUDA_EXACT_MATH_H_

// The float32 functions of docs/exactness.md for kernels of simt.h: the same
// operations in the same order as on a CPU, so the same bits.

#include <cstdint>

#include "kernels/cuda/simt.h"

namespace tern::cuda {

// Maximum and minimum of section 1: with a NaN on either side the second
// operand is the result.
SIMT_DEVICE float MaxOf(float a, float b) { return a > b ? a : b; }
SIMT_DEVICE float MinOf(float a, float b) { return a < b ? a : b; }

SIMT_DEVICE float Magnitude(float x) {
  return simt::FloatOfBits(simt::FloatBits(x) & 0x7fffffffu);
}
SIMT_DEVICE bool IsFinite(float x) {
  return (simt::FloatBits(x) & 0x7f800000u) != 0x7f800000u;
}
SIMT_DEVICE float Infinity() { return simt::FloatOfBits(0x7f800000u); }

// Section 7.
SIMT_DEVICE float Exp(float x) {
  if (x != x) return x;
  if (x < -0x1.5d589ep+6f) return 0.0f;
  if (x > 0x1.62e42ep+6f) return Infinity();
  const float n = simt::RoundEven(x * 0x1.715476p+0f);
  float r = simt::Fma(n, -0x1.62e430p-1f, x);
  r = simt::Fma(n, 0x1.05c610p-29f, r);
  float p = 0x1.a01a02p-13f;
  p = simt::Fma(p, r, 0x1.6c16c2p-10f);
  p = simt::Fma(p, r, 0x1.111112p-7f);
  p = simt::Fma(p, r, 0x1.555556p-5f);
  p = simt::Fma(p, r, 0x1.555556p-3f);
  p = simt::Fma(p, r, 0.5f);
  p = simt::Fma(p, r, 1.0f);
  p = simt::Fma(p, r, 1.0f);
  const uint32_t exponent = static_cast<uint32_t>(static_cast<int32_t>(n));
  return simt::FloatOfBits(simt::FloatBits(p) + (exponent << 23));
}

// Section 8: what a key or value is stored as.
SIMT_DEVICE uint16_t SaturatingHalf(float x) {
  return simt::FloatToHalf(MaxOf(MinOf(x, 65504.0f), -65504.0f));
}

// Section 10.
SIMT_DEVICE float Relu2Gate(float gate, float up) {
  const float r = gate > 0.0f ? gate : 0.0f;
  return (r * r) * up;
}
SIMT_DEVICE float SiluGate(float gate, float up) {
  return simt::Divide(gate, 1.0f + Exp(-gate)) * up;
}

// Section 3: x * s as an int8.
SIMT_DEVICE int32_t RoundToInt8(float t) {
  if (t != t) return 0;
  const float rounded = simt::RoundEven(t);
  return static_cast<int32_t>(MaxOf(MinOf(rounded, 127.0f), -127.0f));
}

// The tree of section 2 over lanes 0..15 of the warp, of which lane l holds
// partial sum l % 16. Every lane gets the sum: both sides of each addition are
// the same for the two lanes that make it.
SIMT_DEVICE float TreeSum16(float lane_sum) {
  SIMT_UNROLL
  for (int width = 8; width >= 1; width /= 2) {
    lane_sum = lane_sum + simt::ShuffleXor(lane_sum, width);
  }
  return lane_sum;
}

}  // namespace tern::cuda

#endif  // KERNELS_CUDA_EXACT_MATH_H_
