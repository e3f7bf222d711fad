#ifndef KERNELS_LANES_NEON_H_
#define KERNELS_LANES_NEON_H_

#include <arm_neon.h>

#include <cstdint>

// What several NEON kernels compute alike. Internal linkage on purpose, see
// kernels/neon.h.
namespace tern::neon {

// The sum of the 16 lanes of a canonical sum: lanes[i] has lanes 4 i .. 4 i
// + 3. Loops over such an array are unrolled, else GCC keeps it in memory.
static inline float Total(const float32x4_t lanes[4]) {
  const float32x4_t t4 =
      vaddq_f32(vaddq_f32(lanes[0], lanes[2]), vaddq_f32(lanes[1], lanes[3]));
  const float32x2_t t2 = vadd_f32(vget_low_f32(t4), vget_high_f32(t4));
  return vget_lane_f32(t2, 0) + vget_lane_f32(t2, 1);
}

// All ones in the first n of 4 lanes; n may be negative or above 4.
static inline uint32x4_t FirstLanes(int n) {
  const int32x4_t index = {0, 1, 2, 3};
  return vcgtq_s32(vdupq_n_s32(n), index);
}

// a > b ? a : b. The instructions FMAX and FMAXNM differ from it where an
// operand is NaN, or both are zeros.
static inline float32x4_t Max(float32x4_t a, float32x4_t b) {
  return vbslq_f32(vcgtq_f32(a, b), a, b);
}

// clamp(round_half_even(x[i] * s), -127, 127) of 16 values, 0 where the product
// is NaN: the conversion makes 0 of NaN, and like both narrowings it saturates.
static inline int8x16_t Quantize16(const float* x, float s) {
  const int32x4_t a = vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x), s));
  const int32x4_t b = vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x + 4), s));
  const int32x4_t c = vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x + 8), s));
  const int32x4_t d = vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x + 12), s));
  const int16x8_t ab = vqmovn_high_s32(vqmovn_s32(a), b);
  const int16x8_t cd = vqmovn_high_s32(vqmovn_s32(c), d);
  return vmaxq_s8(vqmovn_high_s16(vqmovn_s16(ab), cd), vdupq_n_s8(-127));
}

// docs/exactness.md, section 7. NaN needs no care: it converts to 0, leaves the
// exponent field as it is and compares as neither tiny nor huge.
static inline float32x4_t Exp(float32x4_t x) {
  const float32x4_t n = vrndnq_f32(vmulq_n_f32(x, 0x1.715476p+0f));
  float32x4_t r = vfmaq_n_f32(x, n, -0x1.62e430p-1f);
  r = vfmaq_n_f32(r, n, 0x1.05c610p-29f);
  float32x4_t p = vdupq_n_f32(0x1.a01a02p-13f);
  p = vfmaq_f32(vdupq_n_f32(0x1.6c16c2p-10f), p, r);
  p = vfmaq_f32(vdupq_n_f32(0x1.111112p-7f), p, r);
  p = vfmaq_f32(vdupq_n_f32(0x1.555556p-5f), p, r);
  p = vfmaq_f32(vdupq_n_f32(0x1.555556p-3f), p, r);
  p = vfmaq_f32(vdupq_n_f32(0.5f), p, r);
  p = vfmaq_f32(vdupq_n_f32(1.0f), p, r);
  p = vfmaq_f32(vdupq_n_f32(1.0f), p, r);
  // Unsigned: what lies outside the range may wrap, and is replaced below.
  const uint32x4_t exponent =
      vshlq_n_u32(vreinterpretq_u32_s32(vcvtq_s32_f32(n)), 23);
  p = vreinterpretq_f32_u32(vaddq_u32(vreinterpretq_u32_f32(p), exponent));
  const uint32x4_t tiny = vcltq_f32(x, vdupq_n_f32(-0x1.5d589ep+6f));
  const uint32x4_t huge = vcgtq_f32(x, vdupq_n_f32(0x1.62e42ep+6f));
  p = vbslq_f32(tiny, vdupq_n_f32(0.0f), p);
  return vbslq_f32(huge, vdupq_n_f32(__builtin_inff()), p);
}

}  // namespace tern::neon

#endif  // KERNELS_LANES_NEON_H_
