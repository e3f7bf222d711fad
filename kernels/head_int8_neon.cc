#include <arm_neon.h>

#include "kernels/head_tiles_neon.h"
#include "kernels/neon.h"

namespace tern::neon {
namespace {

// 16 rows of a panel against kTokens tokens, without dot products. Two products
// of bytes from -127 to 127, here of two blocks, still fit 16 bits: 2 * 127 *
// 127 = 32258. A sum of 32 bits is for two columns of a row.
template <int kTokens>
void Int8Tile(const int8_t* panel, int n_columns, const int8_t* q,
              int32x4_t (*sums)[4]) {
  int32x4_t acc[kTokens][4][2];
#pragma GCC unroll 2
  for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 4
    for (int h = 0; h < 4; ++h) acc[t][h][0] = acc[t][h][1] = vdupq_n_s32(0);
  }
  for (int k = 0; k < n_columns; k += 8) {
    const int8_t* const block0 = panel + kHeadPanelRows * k;
    const int8_t* const block1 = block0 + kHeadPanelRows * 4;
    int8x16_t x0[kTokens];
    int8x16_t x1[kTokens];
#pragma GCC unroll 2
    for (int t = 0; t < kTokens; ++t) {
      const int32x2_t x = vreinterpret_s32_s8(
          vld1_s8(q + static_cast<size_t>(t) * n_columns + k));
      x0[t] = vreinterpretq_s8_s32(vdupq_lane_s32(x, 0));
      x1[t] = vreinterpretq_s8_s32(vdupq_lane_s32(x, 1));
    }
#pragma GCC unroll 4
    for (int h = 0; h < 4; ++h) {
      const int8x16_t w0 = vld1q_s8(block0 + 16 * h);
      const int8x16_t w1 = vld1q_s8(block1 + 16 * h);
#pragma GCC unroll 2
      for (int t = 0; t < kTokens; ++t) {
        const int16x8_t rows01 =
            vmlal_s8(vmull_s8(vget_low_s8(w0), vget_low_s8(x0[t])),
                     vget_low_s8(w1), vget_low_s8(x1[t]));
        const int16x8_t rows23 =
            vmlal_high_s8(vmull_high_s8(w0, x0[t]), w1, x1[t]);
        acc[t][h][0] = vpadalq_s16(acc[t][h][0], rows01);
        acc[t][h][1] = vpadalq_s16(acc[t][h][1], rows23);
      }
    }
  }
#pragma GCC unroll 2
  for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 4
    for (int h = 0; h < 4; ++h) {
      sums[t][h] = vpaddq_s32(acc[t][h][0], acc[t][h][1]);
    }
  }
}

constexpr HeadTileFunction kTiles[] = {nullptr, Int8Tile<1>, Int8Tile<2>};

}  // namespace

void HeadInt8(const Int8View& w, const QuantizedTokens& x, int row_begin,
              int row_end, float* logits, size_t logits_stride) {
  HeadInt8Tiles(kTiles, w, x, row_begin, row_end, logits, logits_stride);
}

}  // namespace tern::neon
