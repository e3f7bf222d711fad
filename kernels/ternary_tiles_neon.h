#ifndef KERNELS_TERNARY_TILES_NEON_H_
#define KERNELS_TERNARY_TILES_NEON_H_

#include <arm_neon.h>

#include <cstddef>
#include <cstdint>

#include "kernels/quantize.h"
#include "kernels/ternary_layout.h"

// What the ternary products of NEON, of DotProd and of I8MM share: everything
// around the innermost loops. Internal linkage on purpose, see kernels/neon.h.
namespace tern::neon {

// Fewer tokens do not go by tiles.
constexpr int kTiledTokensMin = 3;
// Groups of four rows of a panel.
constexpr int kGroupsPerPanel = kPanelRows / 4;
// Rows of a tile: two registers of four.
constexpr int kRowsPerTile = 8;
// Tokens whose activations stay in the L2 cache while all rows pass by.
constexpr int kTokensPerBlock = 96;

// Sums of codes (w + 1) times q, for 8 rows and some tokens, `stride` apart.
//
// rows8: the panel plus 32 bytes for every 8 rows skipped.
// sums:  of token t, rows 0..3 and rows 4..7.
using TileFunction = void (*)(const uint8_t* rows8, int n_blocks,
                              const int8_t* q, size_t stride,
                              int32x4_t (*sums)[2]);

// y = (float)(sum - q_sum) / s * scale, for up to 4 rows.
static inline void StoreRows(int32x4_t sum, int32_t q_sum, float s, float scale,
                             int n_rows, float* y) {
  const int32x4_t exact = vsubq_s32(sum, vdupq_n_s32(q_sum));
  const float32x4_t value =
      vmulq_n_f32(vdivq_f32(vcvtq_f32_s32(exact), vdupq_n_f32(s)), scale);
  if (n_rows >= 4) {
    vst1q_f32(y, value);
  } else {
    float rows[4];
    vst1q_f32(rows, value);
    for (int i = 0; i < n_rows; ++i) y[i] = rows[i];
  }
}

// Sums of codes (w + 1) times q, for one token and a panel: (*sums)[h] has rows
// 4h .. 4h + 3.
using PanelFunction = void (*)(const uint8_t* panel, int n_blocks,
                               const int8_t* q,
                               int32x4_t (*sums)[kGroupsPerPanel]);

// All tokens, one by one, against rows [row_begin, row_end).
static inline void MatmulPanels(PanelFunction matvec, const TernaryView& w,
                                const QuantizedTokens& x, int row_begin,
                                int row_end, float* y, size_t y_stride) {
  const int n_blocks = w.n_in / kBlockColumns;
  const size_t panel_bytes = static_cast<size_t>(n_blocks) * kBlockBytes;
  for (int row = row_begin; row < row_end; row += kPanelRows) {
    const uint8_t* panel = w.packed + row / kPanelRows * panel_bytes;
    for (int t = 0; t < x.n_tokens; ++t) {
      int32x4_t sums[kGroupsPerPanel];
      matvec(panel, n_blocks, x.q + static_cast<size_t>(t) * x.n, &sums);
      for (int h = 0; h < kGroupsPerPanel && row + 4 * h < row_end; ++h) {
        StoreRows(sums[h], x.sum[t], x.s[t], w.scale, row_end - row - 4 * h,
                  y + t * y_stride + row + 4 * h);
      }
    }
  }
}

// Tokens [token_begin, token_end) against rows [row_begin, row_end).
template <int kTileCount>
static inline void MatmulTokens(const TileFunction (&tiles)[kTileCount],
                                const TernaryView& w, const QuantizedTokens& x,
                                int token_begin, int token_end, int row_begin,
                                int row_end, float* y, size_t y_stride) {
  constexpr int kTokensPerTile = kTileCount - 1;
  const int n_blocks = w.n_in / kBlockColumns;
  const size_t panel_bytes = static_cast<size_t>(n_blocks) * kBlockBytes;
  const int n_tokens = token_end - token_begin;
  const int n_tiles = (n_tokens + kTokensPerTile - 1) / kTokensPerTile;
  for (int row = row_begin; row < row_end; row += kRowsPerTile) {
    const uint8_t* rows8 =
        w.packed + row / kPanelRows * panel_bytes + row % kPanelRows * 4;
    for (int tile = 0; tile < n_tiles; ++tile) {
      // Tiles of nearly equal size: none has fewer than half the most tokens.
      const int begin = token_begin + n_tokens * tile / n_tiles;
      const int end = token_begin + n_tokens * (tile + 1) / n_tiles;
      int32x4_t sums[kTokensPerTile][2];
      tiles[end - begin](rows8, n_blocks,
                         x.q + static_cast<size_t>(begin) * x.n, x.n, sums);
      for (int t = begin; t < end; ++t) {
        float* to = y + t * y_stride + row;
        StoreRows(sums[t - begin][0], x.sum[t], x.s[t], w.scale, row_end - row,
                  to);
        StoreRows(sums[t - begin][1], x.sum[t], x.s[t], w.scale,
                  row_end - row - 4, to + 4);
      }
    }
  }
}

// All tokens against rows [row_begin, row_end).
//
// tiles[n]: for n tokens. None is asked for that has fewer than both
//           kTiledTokensMin and half of the most tokens.
// REQUIRES: x.n_tokens >= kTiledTokensMin.
template <int kTileCount>
static inline void MatmulTiles(const TileFunction (&tiles)[kTileCount],
                               const TernaryView& w, const QuantizedTokens& x,
                               int row_begin, int row_end, float* y,
                               size_t y_stride) {
  const int n_token_blocks =
      (x.n_tokens + kTokensPerBlock - 1) / kTokensPerBlock;
  for (int i = 0; i < n_token_blocks; ++i) {
    const auto bound = [&](int index) {
      return static_cast<int>(static_cast<int64_t>(x.n_tokens) * index /
                              n_token_blocks);
    };
    MatmulTokens(tiles, w, x, bound(i), bound(i + 1), row_begin, row_end, y,
                 y_stride);
  }
}

}  // namespace tern::neon

#endif  // KERNELS_TERNARY_TILES_NEON_H_
