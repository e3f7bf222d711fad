#include <immintrin.h>

#include "kernels/avx2.h"
#include "kernels/exp.h"
#include "kernels/lanes_avx2.h"

namespace tern::avx2 {
namespace {

__m256 SquareInto(const float* x, __m256 lanes) {
  const __m256 v = _mm256_loadu_ps(x);
  return _mm256_fmadd_ps(v, v, lanes);
}

// The first n of 8 elements. Squares are never negative, so that the zeros of
// the other lanes leave them as they are.
__m256 SquareIntoSome(const float* x, int n, __m256 lanes) {
  const __m256 v = _mm256_maskload_ps(x, FirstLanes(n));
  return _mm256_fmadd_ps(v, v, lanes);
}

void RotateNeox(float* x, const float* cos, const float* sin, int half) {
  float* y = x + half;
  int i = 0;
  for (; i + 8 <= half; i += 8) {
    const __m256 a = _mm256_loadu_ps(x + i);
    const __m256 b = _mm256_loadu_ps(y + i);
    const __m256 c = _mm256_loadu_ps(cos + i);
    const __m256 s = _mm256_loadu_ps(sin + i);
    _mm256_storeu_ps(x + i, _mm256_fmsub_ps(a, c, _mm256_mul_ps(b, s)));
    _mm256_storeu_ps(y + i, _mm256_fmadd_ps(b, c, _mm256_mul_ps(a, s)));
  }
  for (; i < half; ++i) {
    const float a = x[i];
    const float b = y[i];
    x[i] = __builtin_fmaf(a, cos[i], -(b * sin[i]));
    y[i] = __builtin_fmaf(b, cos[i], a * sin[i]);
  }
}

void RotateNorm(float* x, const float* cos, const float* sin, int half) {
  const __m256i twice = _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3);
  int i = 0;
  for (; i + 4 <= half; i += 4) {
    const __m256 ab = _mm256_loadu_ps(x + 2 * i);
    const __m256 ba = _mm256_permute_ps(ab, 0xb1);
    const __m256 c = _mm256_permutevar8x32_ps(
        _mm256_castps128_ps256(_mm_loadu_ps(cos + i)), twice);
    const __m256 s = _mm256_permutevar8x32_ps(
        _mm256_castps128_ps256(_mm_loadu_ps(sin + i)), twice);
    // Subtracts in even lanes (the a's), adds in odd ones.
    _mm256_storeu_ps(x + 2 * i,
                     _mm256_fmaddsub_ps(ab, c, _mm256_mul_ps(ba, s)));
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
  Lanes16 lanes = {_mm256_setzero_ps(), _mm256_setzero_ps()};
  int i = 0;
  for (; i + 16 <= n; i += 16) {
    lanes.low = SquareInto(x + i, lanes.low);
    lanes.high = SquareInto(x + i + 8, lanes.high);
  }
  lanes.low = SquareIntoSome(x + i, n - i, lanes.low);
  if (n - i > 8) lanes.high = SquareIntoSome(x + i + 8, n - i - 8, lanes.high);

  const float mean = Total(lanes) / static_cast<float>(n);
  const float r = 1.0f / __builtin_sqrtf(mean + eps);
  const __m256 vr = _mm256_set1_ps(r);
  for (i = 0; i + 8 <= n; i += 8) {
    const __m256 scaled = _mm256_mul_ps(_mm256_loadu_ps(x + i), vr);
    _mm256_storeu_ps(y + i, _mm256_mul_ps(scaled, _mm256_loadu_ps(weight + i)));
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
  const __m256 zero = _mm256_setzero_ps();
  int i = 0;
  for (; i + 8 <= n; i += 8) {
    // The second operand is the result when the first is NaN.
    const __m256 r = _mm256_max_ps(_mm256_loadu_ps(gate + i), zero);
    _mm256_storeu_ps(
        y + i, _mm256_mul_ps(_mm256_mul_ps(r, r), _mm256_loadu_ps(up + i)));
  }
  for (; i < n; ++i) {
    const float r = gate[i] > 0.0f ? gate[i] : 0.0f;
    y[i] = (r * r) * up[i];
  }
}

void SiluGate(const float* gate, const float* up, int n, float* y) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  const __m256 one = _mm256_set1_ps(1.0f);
  int i = 0;
  for (; i + 8 <= n; i += 8) {
    const __m256 g = _mm256_loadu_ps(gate + i);
    const __m256 e = Exp(_mm256_xor_ps(g, sign));
    const __m256 sigmoid = _mm256_div_ps(g, _mm256_add_ps(one, e));
    _mm256_storeu_ps(y + i, _mm256_mul_ps(sigmoid, _mm256_loadu_ps(up + i)));
  }
  for (; i < n; ++i) {
    y[i] = (gate[i] / (1.0f + tern::Exp(-gate[i]))) * up[i];
  }
}

void Add(float* x, const float* y, int n) {
  int i = 0;
  for (; i + 8 <= n; i += 8) {
    _mm256_storeu_ps(
        x + i, _mm256_add_ps(_mm256_loadu_ps(x + i), _mm256_loadu_ps(y + i)));
  }
  for (; i < n; ++i) x[i] += y[i];
}

void ExpEach(const float* x, int n, float* y) {
  int i = 0;
  for (; i + 8 <= n; i += 8) {
    _mm256_storeu_ps(y + i, Exp(_mm256_loadu_ps(x + i)));
  }
  for (; i < n; ++i) y[i] = tern::Exp(x[i]);
}

}  // namespace tern::avx2
