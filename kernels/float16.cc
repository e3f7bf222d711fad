#include "kernels/float16.h"

#include <cstring>

namespace tern {

float HalfToFloat(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000) << 16;
  const uint32_t exponent = (half >> 10) & 0x1f;
  const uint32_t fraction = half & 0x3ff;
  uint32_t bits;
  if (exponent == 0x1f) {
    bits = 0x7f800000 | (fraction << 13);
    if (fraction != 0) bits |= 0x00400000;
  } else if (exponent != 0) {
    bits = ((exponent + 112) << 23) | (fraction << 13);
  } else {
    // A subnormal is fraction * 2^-24, which float32 holds exactly.
    const float magnitude = static_cast<float>(fraction) * 0x1p-24f;
    std::memcpy(&bits, &magnitude, sizeof(bits));
  }
  bits |= sign;
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

uint16_t FloatToHalf(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof(bits));
  const uint32_t sign = (bits >> 16) & 0x8000;
  const uint32_t magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7e00;
  // 65520 is half-way between 65504 and the next power of two: it rounds up.
  if (magnitude >= 0x477ff000) return sign | 0x7c00;
  uint32_t fraction;  // the float16 bits before rounding, shifted left
  int shift;
  if (magnitude >= 0x38800000) {
    fraction = magnitude - (112u << 23);
    shift = 13;
  } else {
    // Subnormal or zero: the unit is 2^-24. Below 2^-25 all is rounded away.
    const int exponent = static_cast<int>(magnitude >> 23);
    if (exponent < 102) return sign;
    fraction = (magnitude & 0x007fffff) | 0x00800000;
    shift = 126 - exponent;
  }
  const uint32_t kept = fraction >> shift;
  const uint32_t rest = fraction & ((1u << shift) - 1);
  const uint32_t half_way = 1u << (shift - 1);
  const bool up = rest > half_way || (rest == half_way && (kept & 1) != 0);
  return sign | (kept + (up ? 1 : 0));
}

uint16_t SaturatingFloatToHalf(float x) {
  float c = x < 65504.0f ? x : 65504.0f;
  c = c > -65504.0f ? c : -65504.0f;
  return FloatToHalf(c);
}

}  // namespace tern
