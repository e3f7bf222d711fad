#include <immintrin.h>

#include "kernels/avx512.h"
#include "kernels/lanes_avx512.h"

namespace tern::avx512 {
namespace {

// The first lanes of `mask`; the others are 0.
__m512 Magnitude(const float* x, __mmask16 mask) {
  return _mm512_abs_ps(_mm512_maskz_loadu_ps(mask, x));
}

}  // namespace

QuantizedScale QuantizeToken(const float* x, int n, int8_t* q) {
  // max(a, b) of the instruction returns b when a is NaN: b is never NaN here.
  __m512 m0 = _mm512_setzero_ps();
  __m512 m1 = m0;
  int i = 0;
  for (; i + 32 <= n; i += 32) {
    m0 = _mm512_max_ps(_mm512_abs_ps(_mm512_loadu_ps(x + i)), m0);
    m1 = _mm512_max_ps(_mm512_abs_ps(_mm512_loadu_ps(x + i + 16)), m1);
  }
  for (; i < n; i += 16) {
    m0 = _mm512_max_ps(Magnitude(x + i, FirstLanes(n - i)), m0);
  }
  const float absmax = _mm512_reduce_max_ps(_mm512_max_ps(m0, m1));
  const float s = 127.0f / (absmax > 1e-5f ? absmax : 1e-5f);

  const __m512 vs = _mm512_set1_ps(s);
  __m512i sums = _mm512_setzero_si512();
  for (i = 0; i < n; i += 16) {
    const __mmask16 lanes = FirstLanes(n - i);
    const __m512 t = _mm512_mul_ps(_mm512_maskz_loadu_ps(lanes, x + i), vs);
    // 0 where the product is NaN. A product exceeds 127 by at most one
    // rounding, which rounds back; the clamp states the contract.
    const __mmask16 ordered = _mm512_cmp_ps_mask(t, t, _CMP_ORD_Q);
    __m512i v = _mm512_maskz_cvtps_epi32(ordered, t);
    v = _mm512_max_epi32(_mm512_min_epi32(v, _mm512_set1_epi32(127)),
                         _mm512_set1_epi32(-127));
    sums = _mm512_add_epi32(sums, v);
    _mm512_mask_cvtepi32_storeu_epi8(q + i, lanes, v);
  }
  return {s, _mm512_reduce_add_epi32(sums)};
}

}  // namespace tern::avx512
