#include <arm_neon.h>

#include "kernels/dotprod.h"
#include "kernels/head_tiles_neon.h"

namespace tern::dotprod {
namespace {

// 16 rows of a panel against kTokens tokens. Few tokens have few sums: theirs
// are kept in kSets parts, so that one addition need not wait for the last.
template <int kTokens>
void Int8Tile(const int8_t* panel, int n_columns, const int8_t* q,
              int32x4_t (*sums)[4]) {
  constexpr int kSets = kTokens == 1 ? 4 : kTokens == 2 ? 2 : 1;
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
    const int8_t* blocks = panel + kHeadPanelRows * k;
    int8x16_t x[kTokens];
#pragma GCC unroll 4
    for (int t = 0; t < kTokens; ++t) {
      x[t] = vld1q_s8(q + static_cast<size_t>(t) * n_columns + k);
    }
#pragma GCC unroll 4
    for (int h = 0; h < 4; ++h) {
      // Four rows of each of four blocks, which meet one lane of x each.
      const int8x16_t w0 = vld1q_s8(blocks + 16 * h);
      const int8x16_t w1 = vld1q_s8(blocks + 16 * h + 64);
      const int8x16_t w2 = vld1q_s8(blocks + 16 * h + 128);
      const int8x16_t w3 = vld1q_s8(blocks + 16 * h + 192);
#pragma GCC unroll 4
      for (int t = 0; t < kTokens; ++t) {
        int32x4_t* a = &acc[0][t][h];
        int32x4_t* b = &acc[1 % kSets][t][h];
        int32x4_t* c = &acc[2 % kSets][t][h];
        int32x4_t* d = &acc[3 % kSets][t][h];
        *a = vdotq_laneq_s32(*a, w0, x[t], 0);
        *b = vdotq_laneq_s32(*b, w1, x[t], 1);
        *c = vdotq_laneq_s32(*c, w2, x[t], 2);
        *d = vdotq_laneq_s32(*d, w3, x[t], 3);
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

}  // namespace

void HeadInt8(const Int8View& w, const QuantizedTokens& x, int row_begin,
              int row_end, float* logits, size_t logits_stride) {
  neon::HeadInt8Tiles(kTiles, w, x, row_begin, row_end, logits, logits_stride);
}

}  // namespace tern::dotprod
