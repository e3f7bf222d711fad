#include <arm_neon.h>

#include "kernels/lanes_neon.h"
#include "kernels/neon.h"

namespace tern::neon {

QuantizedScale QuantizeToken(const float* x, int n, int8_t* q) {
  float32x4_t m0 = vdupq_n_f32(0.0f);
  float32x4_t m1 = m0;
  float32x4_t m2 = m0;
  float32x4_t m3 = m0;
  int i = 0;
  for (; i + 16 <= n; i += 16) {
    m0 = Max(vabsq_f32(vld1q_f32(x + i)), m0);
    m1 = Max(vabsq_f32(vld1q_f32(x + i + 4)), m1);
    m2 = Max(vabsq_f32(vld1q_f32(x + i + 8)), m2);
    m3 = Max(vabsq_f32(vld1q_f32(x + i + 12)), m3);
  }
  // No NaN and no negative zero is left to tell the two maxima apart.
  float absmax = vmaxvq_f32(vmaxq_f32(vmaxq_f32(m0, m1), vmaxq_f32(m2, m3)));
  for (; i < n; ++i) {
    const float magnitude = __builtin_fabsf(x[i]);
    if (magnitude > absmax) absmax = magnitude;
  }
  const float s = 127.0f / (absmax > 1e-5f ? absmax : 1e-5f);

  int32x4_t sums = vdupq_n_s32(0);
  for (i = 0; i + 16 <= n; i += 16) {
    const int8x16_t v = Quantize16(x + i, s);
    vst1q_s8(q + i, v);
    sums = vpadalq_s16(sums, vpaddlq_s8(v));
  }
  if (i < n) {
    float tail[16] = {};
    __builtin_memcpy(tail, x + i, (n - i) * sizeof(float));
    const int8x16_t v = Quantize16(tail, s);
    int8_t q_tail[16];
    vst1q_s8(q_tail, v);
    __builtin_memcpy(q + i, q_tail, n - i);
    sums = vpadalq_s16(sums, vpaddlq_s8(v));
  }
  return {s, vaddvq_s32(sums)};
}

}  // namespace tern::neon
