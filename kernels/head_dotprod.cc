#include <arm_neon.h>

#include "kernels/dotprod.h"
#include "kernels/head_tiles_neon.h"

namespace tern::dotprod {
namespace {

// 16 rows of a panel against kTokens tokens. Few tokens have few sums: theirs
// are kept in kSets parts, so that one addition need not wait for the last.
template <int kTokens>
void Int8Tile(const uint8_t* upper, const uint8_t* lower, int n_columns,
              const int8_t* q, int32x4_t (*sums)[4]) {
  constexpr int kSets = kTokens == 1 ? 4 : kTokens == 2 ? 2 : 1;
  const size_t group_bytes =
      static_cast<size_t>(n_columns) * (kHeadGroupRows / 2);
  int32x4_t acc[kSets][kTokens][4];
#pragma GCC unroll 4
  for (int set = 0; set < kSets; ++set) {
#pragma GCC unroll 4
    for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 4
      for (int h = 0; h < 4; ++h) acc[set][t][h] = vdupq_n_s32(0);
    }
  }
  for (int k = 0; k < n_columns; k += 16) {
    const uint8_t* const blocks = upper + kHeadPanelRows / 2 * k;
    int8x16_t x[kTokens];
#pragma GCC unroll 4
    for (int t = 0; t < kTokens; ++t) {
      x[t] = vld1q_s8(q + static_cast<size_t>(t) * n_columns + k);
    }
#pragma GCC unroll 4
    for (int h = 0; h < 4; ++h) {
      // Four rows and sixteen columns: four quads, which meet one lane of x
      // each.
      const uint8_t* const group =
          lower + h * group_bytes + kHeadGroupRows / 2 * k;
      const int8x16x2_t w0 =
          neon::JoinPlanes(vld1q_u8(blocks + 16 * h), vld1q_u8(group));
      const int8x16x2_t w1 = neon::JoinPlanes(vld1q_u8(blocks + 16 * h + 64),
                                              vld1q_u8(group + 16));
#pragma GCC unroll 4
      for (int t = 0; t < kTokens; ++t) {
        int32x4_t* a = &acc[0][t][h];
        int32x4_t* b = &acc[1 % kSets][t][h];
        int32x4_t* c = &acc[2 % kSets][t][h];
        int32x4_t* d = &acc[3 % kSets][t][h];
        *a = vdotq_laneq_s32(*a, w0.val[0], x[t], 0);
        *b = vdotq_laneq_s32(*b, w0.val[1], x[t], 1);
        *c = vdotq_laneq_s32(*c, w1.val[0], x[t], 2);
        *d = vdotq_laneq_s32(*d, w1.val[1], x[t], 3);
      }
    }
  }
#pragma GCC unroll 4
  for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 4
    for (int h = 0; h < 4; ++h) {
      int32x4_t sum = acc[0][t][h];
#pragma GCC unroll 4
      for (int set = 1; set < kSets; ++set) {
        sum = vaddq_s32(sum, acc[set][t][h]);
      }
      sums[t][h] = sum;
    }
  }
}

constexpr neon::HeadTileFunction kTiles[] = {
    nullptr, Int8Tile<1>, Int8Tile<2>, Int8Tile<3>, Int8Tile<4>,
};

// Four rows of either plane against kTokens tokens.
template <int kTokens>
void PlaneTile(const uint8_t* rows, size_t step, int n_columns, const int8_t* q,
               int32x4_t* sums) {
  int32x4_t acc[kTokens][2];
#pragma GCC unroll 4
  for (int t = 0; t < kTokens; ++t) acc[t][0] = acc[t][1] = vdupq_n_s32(0);
  for (int k = 0; k < n_columns; k += 16) {
    const int8x16x2_t a = neon::SplitPlane(vld1q_u8(rows));
    const int8x16x2_t b = neon::SplitPlane(vld1q_u8(rows + step));
    rows += 2 * step;
#pragma GCC unroll 4
    for (int t = 0; t < kTokens; ++t) {
      const int8x16_t x = vld1q_s8(q + static_cast<size_t>(t) * n_columns + k);
      acc[t][0] = vdotq_laneq_s32(acc[t][0], a.val[0], x, 0);
      acc[t][1] = vdotq_laneq_s32(acc[t][1], a.val[1], x, 1);
      acc[t][0] = vdotq_laneq_s32(acc[t][0], b.val[0], x, 2);
      acc[t][1] = vdotq_laneq_s32(acc[t][1], b.val[1], x, 3);
    }
  }
#pragma GCC unroll 4
  for (int t = 0; t < kTokens; ++t) sums[t] = vaddq_s32(acc[t][0], acc[t][1]);
}

constexpr neon::PlaneTileFunction kPlaneTiles[] = {
    nullptr, PlaneTile<1>, PlaneTile<2>, PlaneTile<3>, PlaneTile<4>,
};

}  // namespace

void HeadInt8(const Int8View& w, const QuantizedTokens& x, int row_begin,
              int row_end, float* logits, size_t logits_stride) {
  neon::HeadInt8Tiles(kTiles, w, x, row_begin, row_end, logits, logits_stride);
}

void HeadInt8Bounds(const Int8View& w, const QuantizedTokens& x,
                    const float* x_norm, int panel_begin, int panel_end,
                    int32_t* upper_sums, float* bounds, size_t stride) {
  neon::HeadBoundsTiles(kPlaneTiles, w, x, x_norm, panel_begin, panel_end,
                        upper_sums, bounds, stride);
}

void HeadInt8Groups(const Int8View& w, const QuantizedTokens& x,
                    const int32_t* groups, int n_groups,
                    const int32_t* upper_sums, float* logits, size_t stride) {
  neon::HeadGroupsTiles(kPlaneTiles, w, x, groups, n_groups, upper_sums, logits,
                        stride);
}

}  // namespace tern::dotprod
