#include <arm_neon.h>

#include "kernels/dotprod.h"
#include "kernels/ternary_tiles_neon.h"

// Sixteen bytes of a block are four rows, whose four fields each meet one lane
// of the activations in SDOT. It takes both operands as signed: a code left in
// the top bits of a byte would count as negative, so that field is always
// shifted down. With codes W + 1 the sum of q is subtracted once at the end.
namespace tern::dotprod {
namespace {

// One token against a panel of 32 rows: sums[h] has rows 4h .. 4h + 3. Fields 1
// and 2 stay where they are and count 4 and 16 times, each in accumulators of
// its own: 24 of the 32 registers.
void MatvecPanel(const uint8_t* panel, int n_blocks, const int8_t* q,
                 int32x4_t (*sums)[neon::kGroupsPerPanel]) {
  const uint8x16_t mask0 = vdupq_n_u8(0x03);
  const uint8x16_t mask1 = vdupq_n_u8(0x0c);
  const uint8x16_t mask2 = vdupq_n_u8(0x30);
  int32x4_t once[8];
  int32x4_t four_times[8];
  int32x4_t sixteen_times[8];
#pragma GCC unroll 8
  for (int h = 0; h < 8; ++h) {
    once[h] = four_times[h] = sixteen_times[h] = vdupq_n_s32(0);
  }
  for (int b = 0; b < n_blocks; ++b) {
    const int8x16_t x = vld1q_s8(q + 16 * b);
    const uint8_t* block = panel + static_cast<size_t>(kBlockBytes) * b;
#pragma GCC unroll 8
    for (int h = 0; h < 8; ++h) {
      const uint8x16_t v = vld1q_u8(block + 16 * h);
      const int8x16_t u0 = vreinterpretq_s8_u8(vandq_u8(v, mask0));
      const int8x16_t u1 = vreinterpretq_s8_u8(vandq_u8(v, mask1));
      const int8x16_t u2 = vreinterpretq_s8_u8(vandq_u8(v, mask2));
      const int8x16_t u3 = vreinterpretq_s8_u8(vshrq_n_u8(v, 6));
      once[h] = vdotq_laneq_s32(once[h], u0, x, 0);
      four_times[h] = vdotq_laneq_s32(four_times[h], u1, x, 1);
      sixteen_times[h] = vdotq_laneq_s32(sixteen_times[h], u2, x, 2);
      once[h] = vdotq_laneq_s32(once[h], u3, x, 3);
    }
  }
  // Unrolled as every loop over the accumulators is: else GCC keeps them in
  // memory.
#pragma GCC unroll 8
  for (int h = 0; h < 8; ++h) {
    (*sums)[h] =
        vaddq_s32(once[h], vaddq_s32(vshrq_n_s32(four_times[h], 2),
                                     vshrq_n_s32(sixteen_times[h], 4)));
  }
}

template <int kTokens>
void MatmulTile(const uint8_t* rows8, int n_blocks, const int8_t* q,
                size_t stride, int32x4_t (*sums)[2]) {
  const uint8x16_t mask = vdupq_n_u8(0x03);
  int32x4_t acc[kTokens][2];
#pragma GCC unroll 8
  for (int t = 0; t < kTokens; ++t) acc[t][0] = acc[t][1] = vdupq_n_s32(0);
  for (int b = 0; b < n_blocks; ++b) {
    const uint8_t* block = rows8 + static_cast<size_t>(kBlockBytes) * b;
    int8x16_t u[2][4];
#pragma GCC unroll 2
    for (int h = 0; h < 2; ++h) {
      const uint8x16_t v = vld1q_u8(block + 16 * h);
      u[h][0] = vreinterpretq_s8_u8(vandq_u8(v, mask));
      u[h][1] = vreinterpretq_s8_u8(vandq_u8(vshrq_n_u8(v, 2), mask));
      u[h][2] = vreinterpretq_s8_u8(vandq_u8(vshrq_n_u8(v, 4), mask));
      u[h][3] = vreinterpretq_s8_u8(vshrq_n_u8(v, 6));
    }
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) {
      const int8x16_t x = vld1q_s8(q + t * stride + 16 * b);
#pragma GCC unroll 2
      for (int h = 0; h < 2; ++h) {
        acc[t][h] = vdotq_laneq_s32(acc[t][h], u[h][0], x, 0);
        acc[t][h] = vdotq_laneq_s32(acc[t][h], u[h][1], x, 1);
        acc[t][h] = vdotq_laneq_s32(acc[t][h], u[h][2], x, 2);
        acc[t][h] = vdotq_laneq_s32(acc[t][h], u[h][3], x, 3);
      }
    }
  }
#pragma GCC unroll 8
  for (int t = 0; t < kTokens; ++t) {
    sums[t][0] = acc[t][0];
    sums[t][1] = acc[t][1];
  }
}

constexpr neon::TileFunction kTiles[] = {
    nullptr,       nullptr,       nullptr,       MatmulTile<3>, MatmulTile<4>,
    MatmulTile<5>, MatmulTile<6>, MatmulTile<7>, MatmulTile<8>,
};

}  // namespace

void TernaryMatmul(const TernaryView& w, const QuantizedTokens& x,
                   int row_begin, int row_end, float* y, size_t y_stride) {
  if (x.n_tokens >= neon::kTiledTokensMin) {
    return neon::MatmulTiles(kTiles, w, x, row_begin, row_end, y, y_stride);
  }
  neon::MatmulPanels(MatvecPanel, w, x, row_begin, row_end, y, y_stride);
}

}  // namespace tern::dotprod
