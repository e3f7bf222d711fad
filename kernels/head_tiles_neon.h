#ifndef KERNELS_HEAD_TILES_NEON_H_
#define KERNELS_HEAD_TILES_NEON_H_

#include <arm_neon.h>

#include <cstddef>
#include <cstdint>

#include "kernels/head.h"
#include "kernels/head_bounds.h"
#include "kernels/quantize.h"

// What the int8 heads of NEON and of DotProd share: everything around the
// innermost loops. Internal linkage on purpose, see kernels/neon.h.
namespace tern::neon {

// Sums of a panel of 16 rows, for some tokens: sums[t][h] has rows 4h .. 4h + 3
// of token t.
using HeadTileFunction = void (*)(const uint8_t* upper, const uint8_t* lower,
                                  int n_columns, const int8_t* q,
                                  int32x4_t (*sums)[4]);

// Sums of four rows of one plane, for some tokens: sums[t] of token t. Eight
// columns are `step` bytes behind the eight before.
using PlaneTileFunction = void (*)(const uint8_t* rows, size_t step,
                                   int n_columns, const int8_t* q,
                                   int32x4_t* sums);

// Four rows and eight columns as q: four columns in each register. A shift that
// inserts joins the halves of q + 128.
static inline int8x16x2_t JoinPlanes(uint8x16_t upper, uint8x16_t lower) {
  const uint8x16_t flip = vdupq_n_u8(0x80);
  return {{vreinterpretq_s8_u8(veorq_u8(vsliq_n_u8(lower, upper, 4), flip)),
           vreinterpretq_s8_u8(veorq_u8(vsriq_n_u8(upper, lower, 4), flip))}};
}

// The same of one plane alone, as 0..15.
static inline int8x16x2_t SplitPlane(uint8x16_t plane) {
  return {{vreinterpretq_s8_u8(vandq_u8(plane, vdupq_n_u8(15))),
           vreinterpretq_s8_u8(vshrq_n_u8(plane, 4))}};
}

// All tokens against rows [row_begin, row_end).
//
// tiles[n]: for n tokens, from 1 on.
template <int kTileCount>
static inline void HeadInt8Tiles(const HeadTileFunction (&tiles)[kTileCount],
                                 const Int8View& w, const QuantizedTokens& x,
                                 int row_begin, int row_end, float* logits,
                                 size_t logits_stride) {
  constexpr int kTokensPerTile = kTileCount - 1;
  const size_t panel_bytes =
      static_cast<size_t>(w.n_columns) * (kHeadPanelRows / 2);
  for (int panel_index = row_begin / kHeadPanelRows;
       panel_index * kHeadPanelRows < row_end; ++panel_index) {
    const size_t at = panel_index * panel_bytes;
    const int first = panel_index * kHeadPanelRows;
    const int begin = first > row_begin ? first : row_begin;
    const int end =
        first + kHeadPanelRows < row_end ? first + kHeadPanelRows : row_end;
    for (int t0 = 0; t0 < x.n_tokens; t0 += kTokensPerTile) {
      const int n_tokens =
          x.n_tokens - t0 < kTokensPerTile ? x.n_tokens - t0 : kTokensPerTile;
      int32x4_t sums[kTokensPerTile][4];
      tiles[n_tokens](w.upper + at, w.lower + at, w.n_columns,
                      x.q + static_cast<size_t>(t0) * x.n, sums);
      for (int t = 0; t < n_tokens; ++t) {
        const float32x4_t s = vdupq_n_f32(x.s[t0 + t]);
        float scaled[kHeadPanelRows];
        for (int h = 0; h < 4; ++h) {
          vst1q_f32(scaled + 4 * h, vdivq_f32(vcvtq_f32_s32(sums[t][h]), s));
        }
        for (int row = begin; row < end; ++row) {
          logits[(t0 + t) * logits_stride + row] =
              scaled[row - first] * w.row_scale[row];
        }
      }
    }
  }
}

// HeadInt8Bounds(), with tiles as above.
template <int kTileCount>
static inline void HeadBoundsTiles(const PlaneTileFunction (&tiles)[kTileCount],
                                   const Int8View& w, const QuantizedTokens& x,
                                   const float* x_norm, int panel_begin,
                                   int panel_end, int32_t* upper_sums,
                                   float* bounds, size_t stride) {
  constexpr int kTokensPerTile = kTileCount - 1;
  const size_t panel_bytes =
      static_cast<size_t>(w.n_columns) * (kHeadPanelRows / 2);
  for (int panel = panel_begin; panel < panel_end; ++panel) {
    for (int t0 = 0; t0 < x.n_tokens; t0 += kTokensPerTile) {
      const int n_tokens =
          x.n_tokens - t0 < kTokensPerTile ? x.n_tokens - t0 : kTokensPerTile;
      for (int h = 0; h < 4; ++h) {
        int32x4_t sums[kTokensPerTile];
        tiles[n_tokens](w.upper + panel * panel_bytes + 16 * h, 64, w.n_columns,
                        x.q + static_cast<size_t>(t0) * x.n, sums);
        for (int i = 0; i < n_tokens; ++i) {
          vst1q_s32(
              upper_sums + (t0 + i) * stride + panel * kHeadPanelRows + 4 * h,
              sums[i]);
        }
      }
      for (int t = t0; t < t0 + n_tokens; ++t) {
        const size_t at = t * stride + panel * kHeadPanelRows;
        StoreHeadBounds(w, x, x_norm[t], t, panel, upper_sums + at,
                        bounds + at / kHeadGroupRows);
      }
    }
  }
}

// HeadInt8Groups(), with tiles as above.
template <int kTileCount>
static inline void HeadGroupsTiles(const PlaneTileFunction (&tiles)[kTileCount],
                                   const Int8View& w, const QuantizedTokens& x,
                                   const int32_t* groups, int n_groups,
                                   const int32_t* upper_sums, float* logits,
                                   size_t stride) {
  constexpr int kTokensPerTile = kTileCount - 1;
  const size_t group_bytes =
      static_cast<size_t>(w.n_columns) * (kHeadGroupRows / 2);
  for (int i = 0; i < n_groups; ++i) {
    for (int t0 = 0; t0 < x.n_tokens; t0 += kTokensPerTile) {
      const int n_tokens =
          x.n_tokens - t0 < kTokensPerTile ? x.n_tokens - t0 : kTokensPerTile;
      int32x4_t sums[kTokensPerTile];
      tiles[n_tokens](w.lower + groups[i] * group_bytes, 16, w.n_columns,
                      x.q + static_cast<size_t>(t0) * x.n, sums);
      for (int j = 0; j < n_tokens; ++j) {
        int32_t lower[kHeadGroupRows];
        vst1q_s32(lower, sums[j]);
        const size_t at = (t0 + j) * stride + groups[i] * kHeadGroupRows;
        StoreGroupLogits(w, x, t0 + j, groups[i], lower, upper_sums + at,
                         logits + at);
      }
    }
  }
}

}  // namespace tern::neon

#endif  // KERNELS_HEAD_TILES_NEON_H_
