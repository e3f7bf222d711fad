#include <immintrin.h>

#include "kernels/lanes_vnni256.h"
#include "kernels/vnni256.h"

namespace tern::TERN_VNNI256 {
namespace {

constexpr int kTokensPerTile = 5;

// What belongs to two groups' rows, from the lower plane.
static inline __m256i JoinGroups(const uint8_t* low, const uint8_t* high) {
  return _mm256_inserti128_si256(
      _mm256_castsi128_si256(
          _mm_load_si128(reinterpret_cast<const __m128i*>(low))),
      _mm_load_si128(reinterpret_cast<const __m128i*>(high)), 1);
}

// 16 rows of a panel against kTokens tokens; sums[t][h] has rows 8h .. 8h + 7,
// of (q + 128) times the activations, so that 128 times their sum is to be
// subtracted. Partial sums may wrap modulo 2^32; the difference fits.
template <int kTokens>
void Int8Tile(const uint8_t* upper, const uint8_t* lower, int n_columns,
              const int8_t* q, __m256i (*sums)[2]) {
  // Few tokens need several chains each to hide the latency of vpdpbusd.
  constexpr int kChains = kTokens <= 2 ? 2 : 1;
  const __m256i low_bits = _mm256_set1_epi8(0x0f);
  const size_t group_bytes =
      static_cast<size_t>(n_columns) * (kHeadGroupRows / 2);
  __m256i acc[kTokens][2][kChains];
#pragma GCC unroll 5
  for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 2
    for (int c = 0; c < kChains; ++c) {
      acc[t][0][c] = acc[t][1][c] = _mm256_setzero_si256();
    }
  }
  for (int k = 0; k < n_columns; k += 8) {
    // The next panel comes to the cache: five sequences that end soon are more
    // than the hardware foresees.
    _mm_prefetch(upper + kHeadPanelRows / 2 * (n_columns + k), _MM_HINT_T0);
    _mm_prefetch(lower + kHeadPanelRows / 2 * (n_columns + k), _MM_HINT_T0);
#pragma GCC unroll 2
    for (int h = 0; h < 2; ++h) {
      const uint8_t* const at = lower + 2 * h * group_bytes + 2 * k;
      const __m256i high = Load32(upper + 8 * k + 32 * h);
      const __m256i low = JoinGroups(at, at + group_bytes);
      // What a 16-bit shift drags in from the neighbour is masked away.
      const __m256i w[2] = {
          _mm256_or_si256(
              _mm256_andnot_si256(low_bits, _mm256_slli_epi16(high, 4)),
              _mm256_and_si256(low_bits, low)),
          _mm256_or_si256(
              _mm256_andnot_si256(low_bits, high),
              _mm256_and_si256(low_bits, _mm256_srli_epi16(low, 4)))};
#pragma GCC unroll 5
      for (int t = 0; t < kTokens; ++t) {
        const int8_t* const x = q + static_cast<size_t>(t) * n_columns + k;
        __m256i& chain0 = acc[t][h][0];
        chain0 = Dot(chain0, w[0], BroadcastQuad(x));
        __m256i& chain1 = acc[t][h][1 % kChains];
        chain1 = Dot(chain1, w[1], BroadcastQuad(x + 4));
      }
    }
  }
#pragma GCC unroll 5
  for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 2
    for (int h = 0; h < 2; ++h) {
      sums[t][h] = acc[t][h][0];
      if (kChains == 2) {
        sums[t][h] = _mm256_add_epi32(sums[t][h], acc[t][h][1 % kChains]);
      }
    }
  }
}

using TileFunction = void (*)(const uint8_t*, const uint8_t*, int,
                              const int8_t*, __m256i (*)[2]);
constexpr TileFunction kTiles[kTokensPerTile + 1] = {
    nullptr, Int8Tile<1>, Int8Tile<2>, Int8Tile<3>, Int8Tile<4>, Int8Tile<5>,
};

}  // namespace

void HeadInt8(const Int8View& w, const QuantizedTokens& x, int row_begin,
              int row_end, float* logits, size_t logits_stride) {
  const size_t panel_bytes =
      static_cast<size_t>(w.n_columns) * (kHeadPanelRows / 2);
  const int n_tiles = (x.n_tokens + kTokensPerTile - 1) / kTokensPerTile;
  for (int panel_index = row_begin / kHeadPanelRows;
       panel_index * kHeadPanelRows < row_end; ++panel_index) {
    const size_t at = panel_index * panel_bytes;
    const int first = panel_index * kHeadPanelRows;
    const int begin_row = first > row_begin ? first : row_begin;
    const int end_row =
        first + kHeadPanelRows < row_end ? first + kHeadPanelRows : row_end;
    for (int tile = 0; tile < n_tiles; ++tile) {
      const int begin = x.n_tokens * tile / n_tiles;
      const int end = x.n_tokens * (tile + 1) / n_tiles;
      __m256i sums[kTokensPerTile][2];
      kTiles[end - begin](w.upper + at, w.lower + at, w.n_columns,
                          x.q + static_cast<size_t>(begin) * x.n, sums);
      for (int t = begin; t < end; ++t) {
        // Unsigned, since the product may wrap.
        const uint32_t offset = 128u * static_cast<uint32_t>(x.sum[t]);
        const __m256i shift = _mm256_set1_epi32(static_cast<int32_t>(offset));
        const __m256 s = _mm256_set1_ps(x.s[t]);
        float scaled[kHeadPanelRows];
        for (int h = 0; h < 2; ++h) {
          const __m256i exact = _mm256_sub_epi32(sums[t - begin][h], shift);
          _mm256_storeu_ps(scaled + 8 * h,
                           _mm256_div_ps(_mm256_cvtepi32_ps(exact), s));
        }
        for (int row = begin_row; row < end_row; ++row) {
          logits[t * logits_stride + row] =
              scaled[row - first] * w.row_scale[row];
        }
      }
    }
  }
}

}  // namespace tern::TERN_VNNI256
