#include <arm_neon.h>

#include "kernels/exp.h"
#include "kernels/lanes_neon.h"
#include "kernels/neon.h"

namespace tern::neon {
namespace {

void AddSquares(const float* x, float32x4_t lanes[4]) {
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    const float32x4_t v = vld1q_f32(x + 4 * i);
    lanes[i] = vfmaq_f32(lanes[i], v, v);
  }
}

void RotateNeox(float* x, const float* cos, const float* sin, int half) {
  float* y = x + half;
  int i = 0;
  for (; i + 4 <= half; i += 4) {
    const float32x4_t a = vld1q_f32(x + i);
    const float32x4_t b = vld1q_f32(y + i);
    const float32x4_t c = vld1q_f32(cos + i);
    const float32x4_t s = vld1q_f32(sin + i);
    vst1q_f32(x + i, vfmaq_f32(vnegq_f32(vmulq_f32(b, s)), a, c));
    vst1q_f32(y + i, vfmaq_f32(vmulq_f32(a, s), b, c));
  }
  for (; i < half; ++i) {
    const float a = x[i];
    const float b = y[i];
    x[i] = __builtin_fmaf(a, cos[i], -(b * sin[i]));
    y[i] = __builtin_fmaf(b, cos[i], a * sin[i]);
  }
}

void RotateNorm(float* x, const float* cos, const float* sin, int half) {
  int i = 0;
  for (; i + 4 <= half; i += 4) {
    const float32x4x2_t ab = vld2q_f32(x + 2 * i);
    const float32x4_t a = ab.val[0];
    const float32x4_t b = ab.val[1];
    const float32x4_t c = vld1q_f32(cos + i);
    const float32x4_t s = vld1q_f32(sin + i);
    vst2q_f32(x + 2 * i, {vfmaq_f32(vnegq_f32(vmulq_f32(b, s)), a, c),
                          vfmaq_f32(vmulq_f32(a, s), b, c)});
  }
  for (; i < half; ++i) {
    const float a = x[2 * i];
    const float b = x[2 * i + 1];
    x[2 * i] = __builtin_fmaf(a, cos[i], -(b * sin[i]));
    x[2 * i + 1] = __builtin_fmaf(b, cos[i], a * sin[i]);
  }
}

}  // namespace

void RmsNorm(const float* x, const float* weight, int n, float eps, float* y) {
  const float32x4_t zero = vdupq_n_f32(0.0f);
  float32x4_t lanes[4] = {zero, zero, zero, zero};
  int i = 0;
  for (; i + 16 <= n; i += 16) AddSquares(x + i, lanes);
  if (i < n) {
    // Squares are never negative, so that the zeros of the other lanes leave
    // them as they are.
    float tail[16] = {};
    __builtin_memcpy(tail, x + i, (n - i) * sizeof(float));
    AddSquares(tail, lanes);
  }

  const float mean = Total(lanes) / static_cast<float>(n);
  const float r = 1.0f / __builtin_sqrtf(mean + eps);
  for (i = 0; i + 4 <= n; i += 4) {
    const float32x4_t scaled = vmulq_n_f32(vld1q_f32(x + i), r);
    vst1q_f32(y + i, vmulq_f32(scaled, vld1q_f32(weight + i)));
  }
  for (; i < n; ++i) y[i] = (x[i] * r) * weight[i];
}

void RopeRotate(float* x, const float* cos, const float* sin, int head_dim,
                RopePairing pairing) {
  if (pairing == RopePairing::kNeox) {
    RotateNeox(x, cos, sin, head_dim / 2);
  } else {
    RotateNorm(x, cos, sin, head_dim / 2);
  }
}

void Relu2Gate(const float* gate, const float* up, int n, float* y) {
  const float32x4_t zero = vdupq_n_f32(0.0f);
  int i = 0;
  for (; i + 4 <= n; i += 4) {
    const float32x4_t r = Max(vld1q_f32(gate + i), zero);
    vst1q_f32(y + i, vmulq_f32(vmulq_f32(r, r), vld1q_f32(up + i)));
  }
  for (; i < n; ++i) {
    const float r = gate[i] > 0.0f ? gate[i] : 0.0f;
    y[i] = (r * r) * up[i];
  }
}

void SiluGate(const float* gate, const float* up, int n, float* y) {
  const float32x4_t one = vdupq_n_f32(1.0f);
  int i = 0;
  for (; i + 4 <= n; i += 4) {
    const float32x4_t g = vld1q_f32(gate + i);
    const float32x4_t sigmoid = vdivq_f32(g, vaddq_f32(one, Exp(vnegq_f32(g))));
    vst1q_f32(y + i, vmulq_f32(sigmoid, vld1q_f32(up + i)));
  }
  for (; i < n; ++i) {
    y[i] = (gate[i] / (1.0f + tern::Exp(-gate[i]))) * up[i];
  }
}

void Add(float* x, const float* y, int n) {
  int i = 0;
  for (; i + 4 <= n; i += 4) {
    vst1q_f32(x + i, vaddq_f32(vld1q_f32(x + i), vld1q_f32(y + i)));
  }
  for (; i < n; ++i) x[i] += y[i];
}

void ExpEach(const float* x, int n, float* y) {
  int i = 0;
  for (; i + 4 <= n; i += 4) vst1q_f32(y + i, Exp(vld1q_f32(x + i)));
  for (; i < n; ++i) y[i] = tern::Exp(x[i]);
}

}  // namespace tern::neon
