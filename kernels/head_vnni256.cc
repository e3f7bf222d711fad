#include <immintrin.h>

#include "kernels/lanes_vnni256.h"
#include "kernels/vnni256.h"

namespace tern::TERN_VNNI256 {
namespace {

constexpr int kTokensPerTile = 5;

// 16 rows of a panel against kTokens tokens; sums[t][h] has rows 8h .. 8h + 7.
// vpdpbusd wants one unsigned operand: w + 128, so that 128 times the sum of q
// is to be subtracted. Partial sums may wrap modulo 2^32; the difference fits.
template <int kTokens>
void Int8Tile(const int8_t* panel, int n_columns, const int8_t* q,
              __m256i (*sums)[2]) {
  // Few tokens need several chains each to hide the latency of vpdpbusd.
  constexpr int kChains = kTokens == 1 ? 4 : kTokens == 2 ? 2 : 1;
  const __m256i flip = _mm256_set1_epi8(static_cast<char>(0x80));
  __m256i top[kTokens][kChains];
  __m256i bottom[kTokens][kChains];
#pragma GCC unroll 5
  for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 4
    for (int c = 0; c < kChains; ++c) {
      top[t][c] = bottom[t][c] = _mm256_setzero_si256();
    }
  }
  for (int k = 0; k < n_columns; k += 16) {
#pragma GCC unroll 4
    for (int b = 0; b < 4; ++b) {
      const int8_t* block = panel + kHeadPanelRows * (k + 4 * b);
      const __m256i w0 = _mm256_xor_si256(Load32(block), flip);
      const __m256i w1 = _mm256_xor_si256(Load32(block + 32), flip);
#pragma GCC unroll 5
      for (int t = 0; t < kTokens; ++t) {
        const __m256i x =
            BroadcastQuad(q + static_cast<size_t>(t) * n_columns + k + 4 * b);
        __m256i& chain0 = top[t][b % kChains];
        __m256i& chain1 = bottom[t][b % kChains];
        chain0 = Dot(chain0, w0, x);
        chain1 = Dot(chain1, w1, x);
      }
    }
  }
#pragma GCC unroll 5
  for (int t = 0; t < kTokens; ++t) {
    sums[t][0] = top[t][0];
    sums[t][1] = bottom[t][0];
#pragma GCC unroll 4
    for (int c = 1; c < kChains; ++c) {
      sums[t][0] = _mm256_add_epi32(sums[t][0], top[t][c]);
      sums[t][1] = _mm256_add_epi32(sums[t][1], bottom[t][c]);
    }
  }
}

using TileFunction = void (*)(const int8_t*, int, const int8_t*,
                              __m256i (*)[2]);
constexpr TileFunction kTiles[kTokensPerTile + 1] = {
    nullptr, Int8Tile<1>, Int8Tile<2>, Int8Tile<3>, Int8Tile<4>, Int8Tile<5>,
};

}  // namespace

void HeadInt8(const Int8View& w, const QuantizedTokens& x, int row_begin,
              int row_end, float* logits, size_t logits_stride) {
  const size_t panel_bytes = static_cast<size_t>(w.n_columns) * kHeadPanelRows;
  const int n_tiles = (x.n_tokens + kTokensPerTile - 1) / kTokensPerTile;
  for (int panel_index = row_begin / kHeadPanelRows;
       panel_index * kHeadPanelRows < row_end; ++panel_index) {
    const int8_t* panel = w.packed + panel_index * panel_bytes;
    const int first = panel_index * kHeadPanelRows;
    const int begin_row = first > row_begin ? first : row_begin;
    const int end_row =
        first + kHeadPanelRows < row_end ? first + kHeadPanelRows : row_end;
    for (int tile = 0; tile < n_tiles; ++tile) {
      const int begin = x.n_tokens * tile / n_tiles;
      const int end = x.n_tokens * (tile + 1) / n_tiles;
      __m256i sums[kTokensPerTile][2];
      kTiles[end - begin](panel, w.n_columns,
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
