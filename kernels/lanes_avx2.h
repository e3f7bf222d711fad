#ifndef KERNELS_LANES_AVX2_H_
#define KERNELS_LANES_AVX2_H_

#include <immintrin.h>

#include <cstdint>

// What several AVX2 kernels compute alike. Internal linkage on purpose, see
// kernels/avx2.h.
namespace tern::avx2 {

// The 16 lanes of a canonical sum: `low` has lanes 0..7, `high` 8..15.
struct Lanes16 {
  __m256 low;
  __m256 high;
};

static inline float Total(const Lanes16& lanes) {
  const __m256 t8 = _mm256_add_ps(lanes.low, lanes.high);
  const __m128 t4 =
      _mm_add_ps(_mm256_castps256_ps128(t8), _mm256_extractf128_ps(t8, 1));
  const __m128 t2 = _mm_add_ps(t4, _mm_movehl_ps(t4, t4));
  return _mm_cvtss_f32(_mm_add_ss(t2, _mm_shuffle_ps(t2, t2, 1)));
}

// All ones in the first n of 8 lanes; n may be negative or above 8.
static inline __m256i FirstLanes(int n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n),
                            _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

// Eight int32 lanes from memory of any alignment, all the same.
static inline __m256i BroadcastQuad(const int8_t* q) {
  int32_t quad;
  __builtin_memcpy(&quad, q, sizeof(quad));
  return _mm256_set1_epi32(quad);
}

// docs/exactness.md, section 7.
static inline __m256 Exp(__m256 x) {
  const __m256 n =
      _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps(0x1.715476p+0f)),
                      _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  __m256 r = _mm256_fmadd_ps(n, _mm256_set1_ps(-0x1.62e430p-1f), x);
  r = _mm256_fmadd_ps(n, _mm256_set1_ps(0x1.05c610p-29f), r);
  __m256 p = _mm256_set1_ps(0x1.a01a02p-13f);
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0x1.6c16c2p-10f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0x1.111112p-7f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0x1.555556p-5f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0x1.555556p-3f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0.5f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
  const __m256i exponent = _mm256_slli_epi32(_mm256_cvtps_epi32(n), 23);
  p = _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), exponent));
  const __m256 tiny =
      _mm256_cmp_ps(x, _mm256_set1_ps(-0x1.5d589ep+6f), _CMP_LT_OQ);
  const __m256 huge =
      _mm256_cmp_ps(x, _mm256_set1_ps(0x1.62e42ep+6f), _CMP_GT_OQ);
  p = _mm256_andnot_ps(tiny, p);
  p = _mm256_blendv_ps(p, _mm256_set1_ps(__builtin_inff()), huge);
  return _mm256_blendv_ps(p, x, _mm256_cmp_ps(x, x, _CMP_UNORD_Q));
}

}  // namespace tern::avx2

#endif  // KERNELS_LANES_AVX2_H_
