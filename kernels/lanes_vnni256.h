#ifndef KERNELS_LANES_VNNI256_H_
#define KERNELS_LANES_VNNI256_H_

#include <immintrin.h>

#include <cstdint>

// What the 256-bit VNNI kernels share. Their files are compiled twice, see
// kernels/vnni256.h: the namespace is that of the compilation. Internal linkage
// on purpose, see kernels/avx2.h.
#if defined(__AVX512VNNI__) && defined(__AVX512VL__)
#define TERN_VNNI256 avx512vnni256
#elif defined(__AVXVNNI__)
#define TERN_VNNI256 avxvnni
#else
#error "these files need AVX-512 VNNI and VL, or AVX-VNNI"
#endif

namespace tern::TERN_VNNI256 {

// acc + the dot products of four unsigned codes and four activations per lane.
static inline __m256i Dot(__m256i acc, __m256i codes, __m256i quads) {
#if defined(__AVX512VNNI__)
  return _mm256_dpbusd_epi32(acc, codes, quads);
#else
  asm("%{vex%} vpdpbusd %2, %1, %0" : "+x"(acc) : "x"(codes), "x"(quads));
  return acc;
#endif
}

// Four activations in every lane, from memory of any alignment.
static inline __m256i BroadcastQuad(const int8_t* q) {
  int32_t quad;
  __builtin_memcpy(&quad, q, sizeof(quad));
  return _mm256_set1_epi32(quad);
}

static inline __m256i Load32(const void* at) {
  return _mm256_load_si256(static_cast<const __m256i*>(at));
}

// All ones in the first n of 8 lanes; n may be negative or above 8.
static inline __m256i FirstLanes(int n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n),
                            _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

}  // namespace tern::TERN_VNNI256

#endif  // KERNELS_LANES_VNNI256_H_
