#ifndef KERNELS_LANES_AVX512_H_
#define KERNELS_LANES_AVX512_H_

#include <immintrin.h>

#include <cstdint>

// What several AVX-512 kernels compute alike. Internal linkage on purpose, see
// kernels/avx512.h.
namespace tern::avx512 {

// The sum of the 16 lanes of a canonical sum.
static inline float Total(__m512 lanes) {
  const __m256 t8 = _mm256_add_ps(_mm512_castps512_ps256(lanes),
                                  _mm512_extractf32x8_ps(lanes, 1));
  const __m128 t4 =
      _mm_add_ps(_mm256_castps256_ps128(t8), _mm256_extractf128_ps(t8, 1));
  const __m128 t2 = _mm_add_ps(t4, _mm_movehl_ps(t4, t4));
  return _mm_cvtss_f32(_mm_add_ss(t2, _mm_shuffle_ps(t2, t2, 1)));
}

// The first n of 16 lanes; n may be negative or above 16.
static inline __mmask16 FirstLanes(int n) {
  if (n >= 16) return 0xffff;
  return n <= 0 ? 0 : static_cast<__mmask16>((1u << n) - 1);
}

// Four activations in every lane; any alignment.
static inline __m512i BroadcastQuad(const int8_t* q) {
  int32_t quad;
  __builtin_memcpy(&quad, q, sizeof(quad));
  return _mm512_set1_epi32(quad);
}

// Tokens that share the loads of a panel of weights.
constexpr int kTokensPerTile = 12;

// Tiles that tokens are cut into. At least two from six tokens on: while one
// computes on a panel in the cache, the next one comes from memory.
static inline int TileCount(int n_tokens) {
  const int n = (n_tokens + kTokensPerTile - 1) / kTokensPerTile;
  return n == 1 && n_tokens >= 6 ? 2 : n;
}

// BitLinear's result: y = (float)(sum - q_sum) / s * scale, for up to 16 rows.
static inline void StoreRows(__m512i sum, int32_t q_sum, float s, float scale,
                             int n_rows, float* y) {
  const __m512i exact = _mm512_sub_epi32(sum, _mm512_set1_epi32(q_sum));
  const __m512 value =
      _mm512_mul_ps(_mm512_div_ps(_mm512_cvtepi32_ps(exact), _mm512_set1_ps(s)),
                    _mm512_set1_ps(scale));
  _mm512_mask_storeu_ps(y, FirstLanes(n_rows), value);
}

// acc + the dot products of four codes and four activations per lane, the
// activations being the same in every lane.
//
// In assembly since GCC loads the broadcast by an instruction of its own, which
// does not pay where it is used once.
static inline __m512i DotQuad(__m512i acc, __m512i codes, const int8_t* quad) {
  asm("vpdpbusd %2%{1to16%}, %1, %0"
      : "+v"(acc)
      : "v"(codes), "m"(*reinterpret_cast<const int8_t(*)[4]>(quad)));
  return acc;
}

// docs/exactness.md, section 7.
static inline __m512 Exp(__m512 x) {
  const __m512 n =
      _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(0x1.715476p+0f)),
                           _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  __m512 r = _mm512_fmadd_ps(n, _mm512_set1_ps(-0x1.62e430p-1f), x);
  r = _mm512_fmadd_ps(n, _mm512_set1_ps(0x1.05c610p-29f), r);
  __m512 p = _mm512_set1_ps(0x1.a01a02p-13f);
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.6c16c2p-10f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.111112p-7f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.555556p-5f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.555556p-3f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.5f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
  const __m512i exponent = _mm512_slli_epi32(_mm512_cvtps_epi32(n), 23);
  p = _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(p), exponent));
  const __mmask16 tiny =
      _mm512_cmp_ps_mask(x, _mm512_set1_ps(-0x1.5d589ep+6f), _CMP_LT_OQ);
  const __mmask16 huge =
      _mm512_cmp_ps_mask(x, _mm512_set1_ps(0x1.62e42ep+6f), _CMP_GT_OQ);
  p = _mm512_mask_mov_ps(p, tiny, _mm512_setzero_ps());
  p = _mm512_mask_mov_ps(p, huge, _mm512_set1_ps(__builtin_inff()));
  return _mm512_mask_mov_ps(p, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), x);
}

}  // namespace tern::avx512

#endif  // KERNELS_LANES_AVX512_H_
