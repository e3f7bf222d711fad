#include <immintrin.h>

#include "kernels/avx512.h"
#include "kernels/lanes_avx512.h"

namespace tern::avx512 {

void SiluGate(const float* gate, const float* up, int n, float* y) {
  const __m512 sign = _mm512_set1_ps(-0.0f);
  const __m512 one = _mm512_set1_ps(1.0f);
  for (int i = 0; i < n; i += 16) {
    const __mmask16 mask = FirstLanes(n - i);
    const __m512 g = _mm512_maskz_loadu_ps(mask, gate + i);
    const __m512 e = Exp(_mm512_xor_ps(g, sign));
    const __m512 sigmoid = _mm512_div_ps(g, _mm512_add_ps(one, e));
    const __m512 u = _mm512_maskz_loadu_ps(mask, up + i);
    _mm512_mask_storeu_ps(y + i, mask, _mm512_mul_ps(sigmoid, u));
  }
}

void ExpEach(const float* x, int n, float* y) {
  for (int i = 0; i < n; i += 16) {
    const __mmask16 mask = FirstLanes(n - i);
    _mm512_mask_storeu_ps(y + i, mask, Exp(_mm512_maskz_loadu_ps(mask, x + i)));
  }
}

}  // namespace tern::avx512
