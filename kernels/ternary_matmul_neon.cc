#include <arm_neon.h>

#include "kernels/neon.h"
#include "kernels/ternary_tiles_neon.h"

// Without dot products: SMLAL multiplies eight bytes and adds them to as many
// sums of 16 bits. Four rows of a field, 16 bytes, meet the same four
// activations, so that two registers hold the sums of four rows, a sum for each
// of the four columns.
//
// Codes are at most 2: 4 fields of 32 blocks add up to 128 * 2 * 127 = 32512 at
// most before sums are widened. Nothing ever wraps.
namespace tern::neon {
namespace {

constexpr int kBlocksPerFlush = 32;

// Sums of codes (w + 1) times q: of token t, sums[t][h] has rows 4h .. 4h + 3.
//
// kTogether: groups of four rows unpacked at a time; each token's activations
// are then loaded once for them.
template <int kGroups, int kTogether, int kTokens>
void MatmulTile(const uint8_t* rows, int n_blocks, const int8_t* q,
                size_t stride, int32x4_t (*sums)[kGroups]) {
  const uint8x16_t mask = vdupq_n_u8(0x03);
  for (int t = 0; t < kTokens; ++t) {
    for (int h = 0; h < kGroups; ++h) sums[t][h] = vdupq_n_s32(0);
  }
  for (int begin = 0; begin < n_blocks; begin += kBlocksPerFlush) {
    const int end =
        begin + kBlocksPerFlush < n_blocks ? begin + kBlocksPerFlush : n_blocks;
    int16x8_t acc[kTokens][kGroups][2];
#pragma GCC unroll 4
    for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 8
      for (int h = 0; h < kGroups; ++h) {
        acc[t][h][0] = acc[t][h][1] = vdupq_n_s16(0);
      }
    }
    for (int b = begin; b < end; ++b) {
      const uint8_t* block = rows + static_cast<size_t>(kBlockBytes) * b;
#pragma GCC unroll 8
      for (int first = 0; first < kGroups; first += kTogether) {
        int8x16_t u[kTogether][4];
#pragma GCC unroll 2
        for (int h = 0; h < kTogether; ++h) {
          const uint8x16_t v = vld1q_u8(block + 16 * (first + h));
          u[h][0] = vreinterpretq_s8_u8(vandq_u8(v, mask));
          u[h][1] = vreinterpretq_s8_u8(vandq_u8(vshrq_n_u8(v, 2), mask));
          u[h][2] = vreinterpretq_s8_u8(vandq_u8(vshrq_n_u8(v, 4), mask));
          u[h][3] = vreinterpretq_s8_u8(vshrq_n_u8(v, 6));
        }
#pragma GCC unroll 4
        for (int t = 0; t < kTokens; ++t) {
          const int32x4_t four =
              vreinterpretq_s32_s8(vld1q_s8(q + t * stride + 16 * b));
          const int8x16_t x[4] = {
              vreinterpretq_s8_s32(vdupq_laneq_s32(four, 0)),
              vreinterpretq_s8_s32(vdupq_laneq_s32(four, 1)),
              vreinterpretq_s8_s32(vdupq_laneq_s32(four, 2)),
              vreinterpretq_s8_s32(vdupq_laneq_s32(four, 3))};
#pragma GCC unroll 2
          for (int h = 0; h < kTogether; ++h) {
            int16x8_t* const a = acc[t][first + h];
#pragma GCC unroll 4
            for (int f = 0; f < 4; ++f) {
              a[0] = vmlal_s8(a[0], vget_low_s8(u[h][f]), vget_low_s8(x[f]));
              a[1] = vmlal_high_s8(a[1], u[h][f], x[f]);
            }
          }
        }
      }
    }
    // Unrolled as every loop over acc is: else GCC keeps it in memory.
#pragma GCC unroll 4
    for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 8
      for (int h = 0; h < kGroups; ++h) {
        sums[t][h] = vaddq_s32(
            sums[t][h],
            vpaddq_s32(vpaddlq_s16(acc[t][h][0]), vpaddlq_s16(acc[t][h][1])));
      }
    }
  }
}

// One token against a panel of 32 rows. Where it is inlined, GCC runs out of
// registers.
__attribute__((noinline)) void MatvecPanel(const uint8_t* panel, int n_blocks,
                                           const int8_t* q,
                                           int32x4_t (*sums)[kGroupsPerPanel]) {
  MatmulTile<kGroupsPerPanel, 1, 1>(panel, n_blocks, q, /*stride=*/0, sums);
}

// The registers there are do not hold tiles of more than four tokens.
constexpr TileFunction kTiles[] = {
    nullptr,
    nullptr,
    MatmulTile<2, 2, 2>,
    MatmulTile<2, 2, 3>,
    MatmulTile<2, 2, 4>,
};

}  // namespace

void TernaryMatmul(const TernaryView& w, const QuantizedTokens& x,
                   int row_begin, int row_end, float* y, size_t y_stride) {
  if (x.n_tokens >= kTiledTokensMin) {
    return MatmulTiles(kTiles, w, x, row_begin, row_end, y, y_stride);
  }
  MatmulPanels(MatvecPanel, w, x, row_begin, row_end, y, y_stride);
}

}  // namespace tern::neon
