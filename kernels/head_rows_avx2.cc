#include <immintrin.h>

#include "kernels/avx2.h"
#include "kernels/head_widen_avx2.h"

namespace tern::avx2 {
namespace {

constexpr int32_t kInfinityBits = 0x7f800000;

// The largest magnitude of x as bits, which order as magnitudes do; infinity
// and NaN are the largest, from kInfinityBits on.
int32_t LargestMagnitude(const float* x, int n) {
  const __m256i mask = _mm256_set1_epi32(0x7fffffff);
  const auto magnitude = [mask](const float* at) {
    return _mm256_and_si256(
        _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at)), mask);
  };
  __m256i m0 = _mm256_setzero_si256();
  __m256i m1 = m0;
  int i = 0;
  for (; i + 16 <= n; i += 16) {
    m0 = _mm256_max_epi32(m0, magnitude(x + i));
    m1 = _mm256_max_epi32(m1, magnitude(x + i + 8));
  }
  int32_t lanes[8];
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(lanes),
                      _mm256_max_epi32(m0, m1));
  int32_t largest = 0;
  for (int32_t lane : lanes) largest = lane > largest ? lane : largest;
  for (; i < n; ++i) {
    int32_t bits;
    __builtin_memcpy(&bits, x + i, sizeof(bits));
    bits &= 0x7fffffff;
    largest = bits > largest ? bits : largest;
  }
  return largest;
}

// Eight values of q. Clamped before the conversion, which has no result for an
// infinite product.
__m256i Quantize8(__m256 x, __m256 inverse) {
  __m256 t = _mm256_mul_ps(x, inverse);
  t = _mm256_and_ps(t, _mm256_cmp_ps(t, t, _CMP_ORD_Q));
  t = _mm256_min_ps(_mm256_max_ps(t, _mm256_set1_ps(-127.0f)),
                    _mm256_set1_ps(127.0f));
  return _mm256_cvtps_epi32(t);
}

void WidenF32(const char* at, int n, float* out) {
  __builtin_memcpy(out, at, n * sizeof(float));
}

void WidenF16(const char* at, int n, float* out) {
  int i = 0;
  for (; i + 8 <= n; i += 8) {
    const __m128i half =
        _mm_loadu_si128(reinterpret_cast<const __m128i*>(at + 2 * i));
    _mm256_storeu_ps(out + i, _mm256_cvtph_ps(half));
  }
  for (; i < n; ++i) out[i] = HalfAt(at + 2 * i);
}

void WidenBF16(const char* at, int n, float* out) {
  int i = 0;
  for (; i + 8 <= n; i += 8) {
    const __m256i bits = _mm256_cvtepu16_epi32(
        _mm_loadu_si128(reinterpret_cast<const __m128i*>(at + 2 * i)));
    _mm256_storeu_ps(out + i, _mm256_castsi256_ps(_mm256_slli_epi32(bits, 16)));
  }
  for (; i < n; ++i) out[i] = BrainFloatAt(at + 2 * i);
}

template <void (*WidenBlock)(const char*, float*)>
void WidenBlocks(const char* at, int n, int block_columns, size_t block_bytes,
                 float* out) {
  for (int i = 0; i < n; i += block_columns) {
    WidenBlock(at, out + i);
    at += block_bytes;
  }
}

}  // namespace

bool WidenRow(const DenseView& w, int row, float* out) {
  const int n = w.n_columns;
  const char* at = static_cast<const char*>(w.data) +
                   static_cast<size_t>(row) * DenseRowBytes(w.type, n);
  switch (w.type) {
    case DenseType::kF32:
      WidenF32(at, n, out);
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
  const int32_t largest = LargestMagnitude(x, n);
  if (largest == 0 || largest >= kInfinityBits) {
    __builtin_memset(q, 0, n);
    return 0.0f;
  }
  float absmax;
  __builtin_memcpy(&absmax, &largest, sizeof(absmax));
  const __m256 inverse = _mm256_set1_ps(127.0f / absmax);
  // Undoes the interleaving of the two packs, which work within 128 bits.
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  int i = 0;
  for (; i + 32 <= n; i += 32) {
    const __m256i a = Quantize8(_mm256_loadu_ps(x + i), inverse);
    const __m256i b = Quantize8(_mm256_loadu_ps(x + i + 8), inverse);
    const __m256i c = Quantize8(_mm256_loadu_ps(x + i + 16), inverse);
    const __m256i d = Quantize8(_mm256_loadu_ps(x + i + 24), inverse);
    const __m256i packed =
        _mm256_packs_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(q + i),
                        _mm256_permutevar8x32_epi32(packed, order));
  }
  for (; i < n; ++i) {
    const __m256i one = Quantize8(_mm256_set1_ps(x[i]), inverse);
    q[i] = static_cast<int8_t>(_mm_cvtsi128_si32(_mm256_castsi256_si128(one)));
  }
  return absmax / 127.0f;
}

}  // namespace tern::avx2
