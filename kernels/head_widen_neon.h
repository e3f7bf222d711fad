#ifndef KERNELS_HEAD_WIDEN_NEON_H_
#define KERNELS_HEAD_WIDEN_NEON_H_

#include <arm_neon.h>

#include <cstddef>
#include <cstdint>

// Elements and blocks of dense rows widened to float32 (docs/exactness.md,
// section 11). Internal linkage on purpose, see kernels/neon.h.
namespace tern::neon {

// Four float16 from any address.
static inline float32x4_t HalvesAt(const uint8_t* at) {
  return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(at)));
}

// Four bfloat16 from any address: the high halves of float32.
static inline float32x4_t BrainFloatsAt(const uint8_t* at) {
  return vreinterpretq_f32_u32(
      vshll_n_u16(vreinterpret_u16_u8(vld1_u8(at)), 16));
}

static inline float HalfAt(const uint8_t* at) {
  uint16_t bits;
  __builtin_memcpy(&bits, at, sizeof(bits));
  return vgetq_lane_f32(vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(bits))),
                        0);
}

static inline float BrainFloatAt(const uint8_t* at) {
  uint16_t bits;
  __builtin_memcpy(&bits, at, sizeof(bits));
  return vget_lane_f32(
      vreinterpret_f32_u32(vdup_n_u32(static_cast<uint32_t>(bits) << 16)), 0);
}

// Sixteen int8 as float32.
static inline float32x4x4_t FloatsOfInt8(int8x16_t q) {
  const int16x8_t low = vmovl_s8(vget_low_s8(q));
  const int16x8_t high = vmovl_high_s8(q);
  return {vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))),
          vcvtq_f32_s32(vmovl_high_s16(low)),
          vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))),
          vcvtq_f32_s32(vmovl_high_s16(high))};
}

// out[i] = d * q[i] for 16 int8.
static inline void StoreScaled16(float d, int8x16_t q, float* out) {
  const float32x4x4_t values = FloatsOfInt8(q);
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    vst1q_f32(out + 4 * i, vmulq_n_f32(values.val[i], d));
  }
}

// out[i] = d * q[i] - m for 16 int8.
static inline void StoreScaled16(float d, float m, int8x16_t q, float* out) {
  const float32x4x4_t values = FloatsOfInt8(q);
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    vst1q_f32(out + 4 * i,
              vsubq_f32(vmulq_n_f32(values.val[i], d), vdupq_n_f32(m)));
  }
}

static inline void WidenBlockQ8_0(const uint8_t* block, float* out) {
  const float d = HalfAt(block);
  StoreScaled16(d, vreinterpretq_s8_u8(vld1q_u8(block + 2)), out);
  StoreScaled16(d, vreinterpretq_s8_u8(vld1q_u8(block + 18)), out + 16);
}

static inline void WidenBlockQ6_K(const uint8_t* block, float* out) {
  const uint8x16_t low_nibbles = vdupq_n_u8(15);
  const uint8x16_t bits_45 = vdupq_n_u8(0x30);
  float d[16];
  StoreScaled16(HalfAt(block + 208), vreinterpretq_s8_u8(vld1q_u8(block + 192)),
                d);
  // Sixteen of the 32 columns of each quarter of a half.
  for (int part = 0; part < 4; ++part) {
    const int half = part / 2;
    const int l = part % 2 * 16;
    const uint8x16_t low0 = vld1q_u8(block + 64 * half + l);
    const uint8x16_t low1 = vld1q_u8(block + 64 * half + 32 + l);
    const uint8x16_t high = vld1q_u8(block + 128 + 32 * half + l);
    const uint8x16_t low[4] = {vandq_u8(low0, low_nibbles),
                               vandq_u8(low1, low_nibbles), vshrq_n_u8(low0, 4),
                               vshrq_n_u8(low1, 4)};
    const uint8x16_t at_45[4] = {vshlq_n_u8(high, 4), vshlq_n_u8(high, 2), high,
                                 vshrq_n_u8(high, 2)};
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      const int8x16_t q = vsubq_s8(
          vreinterpretq_s8_u8(vorrq_u8(low[i], vandq_u8(at_45[i], bits_45))),
          vdupq_n_s8(32));
      StoreScaled16(d[8 * half + 2 * i + part % 2], q,
                    out + 128 * half + 32 * i + l);
    }
  }
}

static inline void WidenBlockQ4_K(const uint8_t* block, float* out) {
  const float d = HalfAt(block);
  const float dmin = HalfAt(block + 2);
  const uint8_t* sc = block + 4;
  for (int group = 0; group < 8; ++group) {
    int scale = sc[group] & 63;
    int min = sc[group + 4] & 63;
    if (group >= 4) {
      scale = (sc[group + 4] & 15) | sc[group - 4] >> 6 << 4;
      min = sc[group + 4] >> 4 | sc[group] >> 6 << 4;
    }
    const float scaled = d * static_cast<float>(scale);
    const float offset = dmin * static_cast<float>(min);
    for (int l = 0; l < 32; l += 16) {
      const uint8x16_t bytes = vld1q_u8(block + 16 + group / 2 * 32 + l);
      const uint8x16_t q = group % 2 == 0 ? vandq_u8(bytes, vdupq_n_u8(15))
                                          : vshrq_n_u8(bytes, 4);
      StoreScaled16(scaled, offset, vreinterpretq_s8_u8(q),
                    out + 32 * group + l);
    }
  }
}

}  // namespace tern::neon

#endif  // KERNELS_HEAD_WIDEN_NEON_H_
