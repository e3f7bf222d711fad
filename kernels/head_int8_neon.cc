#include <arm_neon.h>

#include "kernels/head_tiles_neon.h"
#include "kernels/neon.h"

namespace tern::neon {
namespace {

// 16 rows of a panel against kTokens tokens, without dot products. Two products
// of bytes from -127 to 127, here of two quads of columns, still fit 16 bits:
// 2 * 127 * 127 = 32258. A sum of 32 bits is for two columns of a row.
template <int kTokens>
void Int8Tile(const uint8_t* upper, const uint8_t* lower, int n_columns,
              const int8_t* q, int32x4_t (*sums)[4]) {
  const size_t group_bytes =
      static_cast<size_t>(n_columns) * (kHeadGroupRows / 2);
  int32x4_t acc[kTokens][4][2];
#pragma GCC unroll 2
  for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 4
    for (int h = 0; h < 4; ++h) acc[t][h][0] = acc[t][h][1] = vdupq_n_s32(0);
  }
  for (int k = 0; k < n_columns; k += 8) {
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
      const int8x16x2_t w = JoinPlanes(
          vld1q_u8(upper + kHeadPanelRows / 2 * k + 16 * h),
          vld1q_u8(lower + h * group_bytes + kHeadGroupRows / 2 * k));
#pragma GCC unroll 2
      for (int t = 0; t < kTokens; ++t) {
        const int16x8_t rows01 =
            vmlal_s8(vmull_s8(vget_low_s8(w.val[0]), vget_low_s8(x0[t])),
                     vget_low_s8(w.val[1]), vget_low_s8(x1[t]));
        const int16x8_t rows23 =
            vmlal_high_s8(vmull_high_s8(w.val[0], x0[t]), w.val[1], x1[t]);
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

// Four rows of either plane against kTokens tokens. Four products of 0..15 and
// a byte fit 16 bits: 4 * 15 * 127 = 7620.
template <int kTokens>
void PlaneTile(const uint8_t* rows, size_t step, int n_columns, const int8_t* q,
               int32x4_t* sums) {
  int32x4_t acc[kTokens][2];
#pragma GCC unroll 4
  for (int t = 0; t < kTokens; ++t) acc[t][0] = acc[t][1] = vdupq_n_s32(0);
  for (int k = 0; k < n_columns; k += 16) {
    const int8x16x2_t a = SplitPlane(vld1q_u8(rows));
    const int8x16x2_t b = SplitPlane(vld1q_u8(rows + step));
    rows += 2 * step;
#pragma GCC unroll 4
    for (int t = 0; t < kTokens; ++t) {
      const int32x4_t x = vreinterpretq_s32_s8(
          vld1q_s8(q + static_cast<size_t>(t) * n_columns + k));
      const int8x16_t x0 = vreinterpretq_s8_s32(vdupq_laneq_s32(x, 0));
      const int8x16_t x1 = vreinterpretq_s8_s32(vdupq_laneq_s32(x, 1));
      const int8x16_t x2 = vreinterpretq_s8_s32(vdupq_laneq_s32(x, 2));
      const int8x16_t x3 = vreinterpretq_s8_s32(vdupq_laneq_s32(x, 3));
      int16x8_t rows01 = vmull_s8(vget_low_s8(a.val[0]), vget_low_s8(x0));
      int16x8_t rows23 = vmull_high_s8(a.val[0], x0);
      rows01 = vmlal_s8(rows01, vget_low_s8(a.val[1]), vget_low_s8(x1));
      rows23 = vmlal_high_s8(rows23, a.val[1], x1);
      rows01 = vmlal_s8(rows01, vget_low_s8(b.val[0]), vget_low_s8(x2));
      rows23 = vmlal_high_s8(rows23, b.val[0], x2);
      rows01 = vmlal_s8(rows01, vget_low_s8(b.val[1]), vget_low_s8(x3));
      rows23 = vmlal_high_s8(rows23, b.val[1], x3);
      acc[t][0] = vpadalq_s16(acc[t][0], rows01);
      acc[t][1] = vpadalq_s16(acc[t][1], rows23);
    }
  }
#pragma GCC unroll 4
  for (int t = 0; t < kTokens; ++t) sums[t] = vpaddq_s32(acc[t][0], acc[t][1]);
}

constexpr PlaneTileFunction kPlaneTiles[] = {
    nullptr, PlaneTile<1>, PlaneTile<2>, PlaneTile<3>, PlaneTile<4>,
};

}  // namespace

void HeadInt8(const Int8View& w, const QuantizedTokens& x, int row_begin,
              int row_end, float* logits, size_t logits_stride) {
  HeadInt8Tiles(kTiles, w, x, row_begin, row_end, logits, logits_stride);
}

void HeadInt8Bounds(const Int8View& w, const QuantizedTokens& x,
                    const float* x_norm, int panel_begin, int panel_end,
                    int32_t* upper_sums, float* bounds, size_t stride) {
  HeadBoundsTiles(kPlaneTiles, w, x, x_norm, panel_begin, panel_end, upper_sums,
                  bounds, stride);
}

void HeadInt8Groups(const Int8View& w, const QuantizedTokens& x,
                    const int32_t* groups, int n_groups,
                    const int32_t* upper_sums, float* logits, size_t stride) {
  HeadGroupsTiles(kPlaneTiles, w, x, groups, n_groups, upper_sums, logits,
                  stride);
}

}  // namespace tern::neon
