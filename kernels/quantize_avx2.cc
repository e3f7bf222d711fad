#include <immintrin.h>

#include "kernels/avx2.h"

namespace tern::avx2 {
namespace {

__m256 Magnitude(__m256 x) {
  return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x);
}

float HorizontalMax(__m256 v) {
  __m128 m = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  m = _mm_max_ps(m, _mm_movehl_ps(m, m));
  return _mm_cvtss_f32(_mm_max_ss(m, _mm_shuffle_ps(m, m, 1)));
}

int32_t HorizontalSum(__m256i v) {
  __m128i s =
      _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
  return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1)));
}

// Eight values of q. A product exceeds 127 by at most one rounding, which
// rounds back; the clamp states the contract.
__m256i Quantize8(__m256 x, __m256 s) {
  __m256 t = _mm256_mul_ps(x, s);
  t = _mm256_and_ps(t, _mm256_cmp_ps(t, t, _CMP_ORD_Q));
  const __m256i q = _mm256_cvtps_epi32(t);
  return _mm256_max_epi32(_mm256_min_epi32(q, _mm256_set1_epi32(127)),
                          _mm256_set1_epi32(-127));
}

}  // namespace

QuantizedScale QuantizeToken(const float* x, int n, int8_t* q) {
  // max(a, b) of the instruction returns b when a is NaN: b is never NaN here.
  __m256 m0 = _mm256_setzero_ps();
  __m256 m1 = m0;
  int i = 0;
  for (; i + 16 <= n; i += 16) {
    m0 = _mm256_max_ps(Magnitude(_mm256_loadu_ps(x + i)), m0);
    m1 = _mm256_max_ps(Magnitude(_mm256_loadu_ps(x + i + 8)), m1);
  }
  float absmax = HorizontalMax(_mm256_max_ps(m0, m1));
  for (; i < n; ++i) {
    const float magnitude = __builtin_fabsf(x[i]);
    if (magnitude > absmax) absmax = magnitude;
  }
  const float s = 127.0f / (absmax > 1e-5f ? absmax : 1e-5f);

  const __m256 vs = _mm256_set1_ps(s);
  // Undoes the interleaving of the two packs, which work within 128 bits.
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  __m256i sums = _mm256_setzero_si256();
  for (i = 0; i + 32 <= n; i += 32) {
    const __m256i a = Quantize8(_mm256_loadu_ps(x + i), vs);
    const __m256i b = Quantize8(_mm256_loadu_ps(x + i + 8), vs);
    const __m256i c = Quantize8(_mm256_loadu_ps(x + i + 16), vs);
    const __m256i d = Quantize8(_mm256_loadu_ps(x + i + 24), vs);
    sums = _mm256_add_epi32(
        sums, _mm256_add_epi32(_mm256_add_epi32(a, b), _mm256_add_epi32(c, d)));
    const __m256i packed =
        _mm256_packs_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(q + i),
                        _mm256_permutevar8x32_epi32(packed, order));
  }
  int32_t sum = HorizontalSum(sums);
  for (; i < n; ++i) {
    const __m256i one = Quantize8(_mm256_set1_ps(x[i]), vs);
    q[i] = static_cast<int8_t>(_mm_cvtsi128_si32(_mm256_castsi256_si128(one)));
    sum += q[i];
  }
  return {s, sum};
}

}  // namespace tern::avx2
