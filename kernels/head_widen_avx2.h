#ifndef KERNELS_HEAD_WIDEN_AVX2_H_
#define KERNELS_HEAD_WIDEN_AVX2_H_

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

// Blocks of dense rows widened to float32 (docs/exactness.md, section 11), for
// the AVX2 and AVX-512 files. Internal linkage on purpose, see kernels/avx2.h.
namespace tern::avx2 {

static inline float HalfAt(const char* at) {
  uint16_t bits;
  __builtin_memcpy(&bits, at, sizeof(bits));
  return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(bits)));
}

static inline float BrainFloatAt(const char* at) {
  uint16_t bits;
  __builtin_memcpy(&bits, at, sizeof(bits));
  return _mm_cvtss_f32(
      _mm_castsi128_ps(_mm_cvtsi32_si128(static_cast<int>(bits) << 16)));
}

static inline __m256i Load32Bytes(const char* at) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at));
}

// Sixteen floats are written as they will be read: a load that spans two recent
// stores waits for the cache.
#if defined(__AVX512F__)

// out[i] = d * q[i] for 16 int8.
static inline void StoreScaled16(float d, __m128i q, float* out) {
  _mm512_storeu_ps(out,
                   _mm512_mul_ps(_mm512_set1_ps(d),
                                 _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(q))));
}

// out[i] = d * q[i] - m for 16 int8.
static inline void StoreScaled16(float d, float m, __m128i q, float* out) {
  const __m512 product = _mm512_mul_ps(
      _mm512_set1_ps(d), _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(q)));
  _mm512_storeu_ps(out, _mm512_sub_ps(product, _mm512_set1_ps(m)));
}

#else

// Eight floats of the low eight int8.
static inline __m256 FloatsOfInt8(__m128i q) {
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(q));
}

// out[i] = d * q[i] for 16 int8.
static inline void StoreScaled16(float d, __m128i q, float* out) {
  const __m256 vd = _mm256_set1_ps(d);
  _mm256_storeu_ps(out, _mm256_mul_ps(vd, FloatsOfInt8(q)));
  _mm256_storeu_ps(out + 8,
                   _mm256_mul_ps(vd, FloatsOfInt8(_mm_srli_si128(q, 8))));
}

// out[i] = d * q[i] - m for 16 int8.
static inline void StoreScaled16(float d, float m, __m128i q, float* out) {
  const __m256 vd = _mm256_set1_ps(d);
  const __m256 vm = _mm256_set1_ps(m);
  _mm256_storeu_ps(out, _mm256_sub_ps(_mm256_mul_ps(vd, FloatsOfInt8(q)), vm));
  _mm256_storeu_ps(
      out + 8,
      _mm256_sub_ps(_mm256_mul_ps(vd, FloatsOfInt8(_mm_srli_si128(q, 8))), vm));
}

#endif

static inline void WidenBlockQ8_0(const char* block, float* out) {
  const float d = HalfAt(block);
  const __m256i q = Load32Bytes(block + 2);
  StoreScaled16(d, _mm256_castsi256_si128(q), out);
  StoreScaled16(d, _mm256_extracti128_si256(q, 1), out + 16);
}

static inline void WidenBlockQ6_K(const char* block, float* out) {
  const __m256i low_nibbles = _mm256_set1_epi8(15);
  const __m256i bits_45 = _mm256_set1_epi8(0x30);
  const __m128i scales =
      _mm_loadu_si128(reinterpret_cast<const __m128i*>(block + 192));
  float d[16];
  StoreScaled16(HalfAt(block + 208), scales, d);
  for (int half = 0; half < 2; ++half) {
    const __m256i low0 = Load32Bytes(block + 64 * half);
    const __m256i low1 = Load32Bytes(block + 64 * half + 32);
    const __m256i high = Load32Bytes(block + 128 + 32 * half);
    // What a 16-bit shift drags in from the neighbour is masked away.
    const __m256i low[4] = {low0, low1, _mm256_srli_epi16(low0, 4),
                            _mm256_srli_epi16(low1, 4)};
    const __m256i at_45[4] = {_mm256_slli_epi16(high, 4),
                              _mm256_slli_epi16(high, 2), high,
                              _mm256_srli_epi16(high, 2)};
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      const __m256i q =
          _mm256_sub_epi8(_mm256_or_si256(_mm256_and_si256(low[i], low_nibbles),
                                          _mm256_and_si256(at_45[i], bits_45)),
                          _mm256_set1_epi8(32));
      const float* scale = d + 8 * half + 2 * i;
      float* to = out + 128 * half + 32 * i;
      StoreScaled16(scale[0], _mm256_castsi256_si128(q), to);
      StoreScaled16(scale[1], _mm256_extracti128_si256(q, 1), to + 16);
    }
  }
}

static inline void WidenBlockQ4_K(const char* block, float* out) {
  const float d = HalfAt(block);
  const float dmin = HalfAt(block + 2);
  const unsigned char* sc = reinterpret_cast<const unsigned char*>(block) + 4;
  for (int group = 0; group < 8; ++group) {
    int scale = sc[group] & 63;
    int min = sc[group + 4] & 63;
    if (group >= 4) {
      scale = (sc[group + 4] & 15) | sc[group - 4] >> 6 << 4;
      min = sc[group + 4] >> 4 | sc[group] >> 6 << 4;
    }
    const __m256i bytes = Load32Bytes(block + 16 + group / 2 * 32);
    const __m256i q =
        _mm256_and_si256(group % 2 == 0 ? bytes : _mm256_srli_epi16(bytes, 4),
                         _mm256_set1_epi8(15));
    const float scaled = d * static_cast<float>(scale);
    const float offset = dmin * static_cast<float>(min);
    StoreScaled16(scaled, offset, _mm256_castsi256_si128(q), out + 32 * group);
    StoreScaled16(scaled, offset, _mm256_extracti128_si256(q, 1),
                  out + 32 * group + 16);
  }
}

}  // namespace tern::avx2

#endif  // KERNELS_HEAD_WIDEN_AVX2_H_
