#include <arm_neon.h>

#include "kernels/head_widen_neon.h"
#include "kernels/lanes_neon.h"
#include "kernels/neon.h"

namespace tern::neon {
namespace {

constexpr uint32_t kInfinityBits = 0x7f800000;

// The largest magnitude of x as bits, which order as magnitudes do; infinity
// and NaN are the largest, from kInfinityBits on.
uint32_t LargestMagnitude(const float* x, int n) {
  const auto magnitude = [](const float* at) {
    return vreinterpretq_u32_f32(vabsq_f32(vld1q_f32(at)));
  };
  uint32x4_t m0 = vdupq_n_u32(0);
  uint32x4_t m1 = m0;
  int i = 0;
  for (; i + 8 <= n; i += 8) {
    m0 = vmaxq_u32(m0, magnitude(x + i));
    m1 = vmaxq_u32(m1, magnitude(x + i + 4));
  }
  uint32_t largest = vmaxvq_u32(vmaxq_u32(m0, m1));
  for (; i < n; ++i) {
    uint32_t bits;
    __builtin_memcpy(&bits, x + i, sizeof(bits));
    bits &= 0x7fffffff;
    largest = bits > largest ? bits : largest;
  }
  return largest;
}

void WidenF16(const uint8_t* at, int n, float* out) {
  int i = 0;
  for (; i + 4 <= n; i += 4) vst1q_f32(out + i, HalvesAt(at + 2 * i));
  for (; i < n; ++i) out[i] = HalfAt(at + 2 * i);
}

void WidenBF16(const uint8_t* at, int n, float* out) {
  int i = 0;
  for (; i + 4 <= n; i += 4) vst1q_f32(out + i, BrainFloatsAt(at + 2 * i));
  for (; i < n; ++i) out[i] = BrainFloatAt(at + 2 * i);
}

template <void (*WidenBlock)(const uint8_t*, float*)>
void WidenBlocks(const uint8_t* at, int n, int block_columns,
                 size_t block_bytes, float* out) {
  for (int i = 0; i < n; i += block_columns) {
    WidenBlock(at, out + i);
    at += block_bytes;
  }
}

}  // namespace

bool WidenRow(const DenseView& w, int row, float* out) {
  const int n = w.n_columns;
  const uint8_t* at = static_cast<const uint8_t*>(w.data) +
                      static_cast<size_t>(row) * DenseRowBytes(w.type, n);
  switch (w.type) {
    case DenseType::kF32:
      __builtin_memcpy(out, at, n * sizeof(float));
      break;
    case DenseType::kF16:
      WidenF16(at, n, out);
      break;
    case DenseType::kBF16:
      WidenBF16(at, n, out);
      break;
    case DenseType::kQ8_0:
      WidenBlocks<WidenBlockQ8_0>(at, n, 32, 34, out);
      break;
    case DenseType::kQ6_K:
      WidenBlocks<WidenBlockQ6_K>(at, n, 256, 210, out);
      break;
    case DenseType::kQ4_K:
      WidenBlocks<WidenBlockQ4_K>(at, n, 256, 144, out);
      break;
  }
  return LargestMagnitude(out, n) < kInfinityBits;
}

float QuantizeHeadRow(const float* x, int n, int8_t* q) {
  const uint32_t largest = LargestMagnitude(x, n);
  if (largest == 0 || largest >= kInfinityBits) {
    __builtin_memset(q, 0, n);
    return 0.0f;
  }
  float absmax;
  __builtin_memcpy(&absmax, &largest, sizeof(absmax));
  const float inverse = 127.0f / absmax;
  int i = 0;
  for (; i + 16 <= n; i += 16) vst1q_s8(q + i, Quantize16(x + i, inverse));
  if (i < n) {
    float tail[16] = {};
    int8_t q_tail[16];
    __builtin_memcpy(tail, x + i, (n - i) * sizeof(float));
    vst1q_s8(q_tail, Quantize16(tail, inverse));
    __builtin_memcpy(q + i, q_tail, n - i);
  }
  return absmax / 127.0f;
}

}  // namespace tern::neon
