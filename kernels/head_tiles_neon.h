#ifndef KERNELS_HEAD_TILES_NEON_H_
#define KERNELS_HEAD_TILES_NEON_H_

#include <arm_neon.h>

#include <cstddef>
#include <cstdint>

#include "kernels/head.h"
#include "kernels/quantize.h"

// What the int8 heads of NEON and of DotProd share: everything around the
// innermost loops. Internal linkage on purpose, see kernels/neon.h.
namespace tern::neon {

// Sums of a panel of 16 rows, for some tokens: sums[t][h] has rows 4h .. 4h + 3
// of token t.
using HeadTileFunction = void (*)(const int8_t* panel, int n_columns,
                                  const int8_t* q, int32x4_t (*sums)[4]);

// All tokens against rows [row_begin, row_end).
//
// tiles[n]: for n tokens, from 1 on.
template <int kTileCount>
static inline void HeadInt8Tiles(const HeadTileFunction (&tiles)[kTileCount],
                                 const Int8View& w, const QuantizedTokens& x,
                                 int row_begin, int row_end, float* logits,
                                 size_t logits_stride) {
  constexpr int kTokensPerTile = kTileCount - 1;
  const size_t panel_bytes = static_cast<size_t>(w.n_columns) * kHeadPanelRows;
  for (int panel_index = row_begin / kHeadPanelRows;
       panel_index * kHeadPanelRows < row_end; ++panel_index) {
    const int8_t* panel = w.packed + panel_index * panel_bytes;
    const int first = panel_index * kHeadPanelRows;
    const int begin = first > row_begin ? first : row_begin;
    const int end =
        first + kHeadPanelRows < row_end ? first + kHeadPanelRows : row_end;
    for (int t0 = 0; t0 < x.n_tokens; t0 += kTokensPerTile) {
      const int n_tokens =
          x.n_tokens - t0 < kTokensPerTile ? x.n_tokens - t0 : kTokensPerTile;
      int32x4_t sums[kTokensPerTile][4];
      tiles[n_tokens](panel, w.n_columns, x.q + static_cast<size_t>(t0) * x.n,
                      sums);
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

}  // namespace tern::neon

#endif  // KERNELS_HEAD_TILES_NEON_H_
