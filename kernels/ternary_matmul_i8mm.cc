#include <arm_neon.h>

#include "kernels/dotprod.h"
#include "kernels/i8mm.h"
#include "kernels/ternary_tiles_neon.h"

// USMMLA multiplies two rows of eight unsigned codes by two tokens of eight
// signed activations: twice the products of a dot product. The packed layout
// has four columns of four rows side by side, so the fields of neighbouring
// columns are zipped as they are unpacked. For a tile of 8 rows and 8 tokens
// that is 60 instructions on vectors for 16 columns, where SDOT takes 76.
namespace tern::i8mm {
namespace {

// Four rows of a block, zipped.
struct RowPairs {
  uint8x16_t rows01_low;   // row 0, columns 0..7; row 1, the same
  uint8x16_t rows23_low;   // rows 2 and 3
  uint8x16_t rows01_high;  // columns 8..15
  uint8x16_t rows23_high;
};

uint8x16_t ZipLow(uint8x16_t a, uint8x16_t b) {
  return vreinterpretq_u8_u32(
      vzip1q_u32(vreinterpretq_u32_u8(a), vreinterpretq_u32_u8(b)));
}

uint8x16_t ZipHigh(uint8x16_t a, uint8x16_t b) {
  return vreinterpretq_u8_u32(
      vzip2q_u32(vreinterpretq_u32_u8(a), vreinterpretq_u32_u8(b)));
}

RowPairs Unpack(uint8x16_t v) {
  const uint8x16_t mask = vdupq_n_u8(0x03);
  const uint8x16_t u0 = vandq_u8(v, mask);
  const uint8x16_t u1 = vandq_u8(vshrq_n_u8(v, 2), mask);
  const uint8x16_t u2 = vandq_u8(vshrq_n_u8(v, 4), mask);
  const uint8x16_t u3 = vshrq_n_u8(v, 6);
  return {ZipLow(u0, u1), ZipHigh(u0, u1), ZipLow(u2, u3), ZipHigh(u2, u3)};
}

// Tokens go in pairs; an odd one is paired with itself.
template <int kTokens>
void MatmulTile(const uint8_t* rows8, int n_blocks, const int8_t* q,
                size_t stride, int32x4_t (*sums)[2]) {
  constexpr int kPairs = (kTokens + 1) / 2;
  // acc[p][h]: row 2h with both tokens of pair p, then row 2h + 1.
  int32x4_t acc[kPairs][4];
#pragma GCC unroll 4
  for (int p = 0; p < kPairs; ++p) {
#pragma GCC unroll 4
    for (int h = 0; h < 4; ++h) acc[p][h] = vdupq_n_s32(0);
  }
  for (int b = 0; b < n_blocks; ++b) {
    const uint8_t* block = rows8 + static_cast<size_t>(kBlockBytes) * b;
    const RowPairs w0 = Unpack(vld1q_u8(block));
    const RowPairs w1 = Unpack(vld1q_u8(block + 16));
#pragma GCC unroll 4
    for (int p = 0; p < kPairs; ++p) {
      const int second = 2 * p + 1 < kTokens ? 2 * p + 1 : 2 * p;
      const int64x2_t x0 =
          vreinterpretq_s64_s8(vld1q_s8(q + 2 * p * stride + 16 * b));
      const int64x2_t x1 =
          vreinterpretq_s64_s8(vld1q_s8(q + second * stride + 16 * b));
      const int8x16_t low = vreinterpretq_s8_s64(vzip1q_s64(x0, x1));
      const int8x16_t high = vreinterpretq_s8_s64(vzip2q_s64(x0, x1));
      acc[p][0] = vusmmlaq_s32(acc[p][0], w0.rows01_low, low);
      acc[p][1] = vusmmlaq_s32(acc[p][1], w0.rows23_low, low);
      acc[p][2] = vusmmlaq_s32(acc[p][2], w1.rows01_low, low);
      acc[p][3] = vusmmlaq_s32(acc[p][3], w1.rows23_low, low);
      acc[p][0] = vusmmlaq_s32(acc[p][0], w0.rows01_high, high);
      acc[p][1] = vusmmlaq_s32(acc[p][1], w0.rows23_high, high);
      acc[p][2] = vusmmlaq_s32(acc[p][2], w1.rows01_high, high);
      acc[p][3] = vusmmlaq_s32(acc[p][3], w1.rows23_high, high);
    }
  }
  // Unrolled as every loop over acc is: else GCC keeps it in memory.
#pragma GCC unroll 4
  for (int p = 0; p < kPairs; ++p) {
    sums[2 * p][0] = vuzp1q_s32(acc[p][0], acc[p][1]);
    sums[2 * p][1] = vuzp1q_s32(acc[p][2], acc[p][3]);
    if (2 * p + 1 < kTokens) {
      sums[2 * p + 1][0] = vuzp2q_s32(acc[p][0], acc[p][1]);
      sums[2 * p + 1][1] = vuzp2q_s32(acc[p][2], acc[p][3]);
    }
  }
}

constexpr neon::TileFunction kTiles[] = {
    nullptr,       nullptr,       nullptr,       MatmulTile<3>, MatmulTile<4>,
    MatmulTile<5>, MatmulTile<6>, MatmulTile<7>, MatmulTile<8>,
};

}  // namespace

void TernaryMatmul(const TernaryView& w, const QuantizedTokens& x,
                   int row_begin, int row_end, float* y, size_t y_stride) {
  // USDOT could also leave the top field where it is, but in accumulators of
  // its own, of which a panel would need more than there are registers: it
  // would save no instruction.
  if (x.n_tokens < neon::kTiledTokensMin) {
    return dotprod::TernaryMatmul(w, x, row_begin, row_end, y, y_stride);
  }
  neon::MatmulTiles(kTiles, w, x, row_begin, row_end, y, y_stride);
}

}  // namespace tern::i8mm
