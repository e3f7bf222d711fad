#include <arm_neon.h>

#include "kernels/neon.h"
#include "kernels/ternary_lookup.h"
#include "kernels/ternary_tiles_neon.h"

// Looks up what a pair of weights adds, instead of multiplying: a token's
// activations give each pair a table of 9 sums, of which a pair of weights
// takes one. TBL looks up bytes, so a table is two planes, of low and of high
// bytes.
//
// A sum is at most 2 * 127 either way, so that its high byte is 0 or -1. Low
// bytes are added up as uint16, high ones as bytes: of 128 pairs they make 128
// * 255 = 32640 and -128 at most before they are put together. Nothing wraps.
//
// The method is that of bitnet.cpp's TL1 kernels (docs/ternary_layout.md). To
// zip the two planes first, as those do, takes fifteen instructions for 64
// weights instead of thirteen.
namespace tern::neon {
namespace {

constexpr int kPairsPerBlock = kBlockColumns / 2;
constexpr int kPairTableBytes = 32;  // 16 low bytes, then 16 high bytes
constexpr int kBlocksPerFlush = 16;

// The low and the high bytes of the 16 sums of a pair.
struct Table {
  uint8x16_t low, high;
};

Table LoadTable(const uint8_t* at) { return {vld1q_u8(at), vld1q_u8(at + 16)}; }

// Sums of 16 rows.
struct RowSums {
  uint16x8_t low0, low1;  // of low bytes, rows 0..7 and 8..15
  int8x16_t high;         // of high bytes
};

inline __attribute__((always_inline)) void AddPair(uint8x16_t indices,
                                                   const Table& table,
                                                   RowSums* sums) {
  const uint8x16_t low = vqtbl1q_u8(table.low, indices);
  const uint8x16_t high = vqtbl1q_u8(table.high, indices);
  sums->low0 = vaddw_u8(sums->low0, vget_low_u8(low));
  sums->low1 = vaddw_high_u8(sums->low1, low);
  sums->high = vaddq_s8(sums->high, vreinterpretq_s8_u8(high));
}

// Adds both planes of 8 rows to 8 int32. The int16 sum of both is exact: 128
// pairs are at most 32512 either way.
void Widen(uint16x8_t low, int8x8_t high, int32_t* sums) {
  const int16x8_t sum =
      vaddq_s16(vreinterpretq_s16_u16(low), vshlq_n_s16(vmovl_s8(high), 8));
  vst1q_s32(sums, vaddw_s16(vld1q_s32(sums), vget_low_s16(sum)));
  vst1q_s32(sums + 4, vaddw_high_s16(vld1q_s32(sums + 4), sum));
}

// See kernels/ternary_lookup.h.
struct Tl1 {
  static constexpr int kColumns = kBlockColumns;
  static constexpr int kBytes = kBlockBytes;
  static constexpr int kTableBytes = kPairsPerBlock * kPairTableBytes;
  // 16 KiB, half of the smallest first caches.
  static constexpr int kBlocksPerChunk = 64;

  static void MakeTables(const int8_t* q, int n_blocks, uint8_t* tables) {
    // The weights of index i, i % 3 - 1 and i / 3 - 1; indices from 9 on never
    // occur.
    const int8x8_t first = {-1, 0, 1, -1, 0, 1, -1, 0};
    const int8x8_t second = {-1, -1, -1, 0, 0, 0, 1, 1};
    const int8x8_t ninth = {1, 0, 0, 0, 0, 0, 0, 0};
    for (int pair = 0; pair < n_blocks * kPairsPerBlock; ++pair) {
      const int8x8_t x0 = vdup_n_s8(q[2 * pair]);
      const int8x8_t x1 = vdup_n_s8(q[2 * pair + 1]);
      const uint8x16_t sums0 =
          vreinterpretq_u8_s16(vmlal_s8(vmull_s8(x0, first), x1, second));
      const uint8x16_t sums1 =
          vreinterpretq_u8_s16(vmlal_s8(vmull_s8(x0, ninth), x1, ninth));
      vst1q_u8(tables + kPairTableBytes * pair, vuzp1q_u8(sums0, sums1));
      vst1q_u8(tables + kPairTableBytes * pair + 16, vuzp2q_u8(sums0, sums1));
    }
  }

  static void AddBlocks(const uint8_t* blocks, int n_blocks,
                        const uint8_t* tables, int32_t* sums) {
    const uint8x16_t low_nibbles = vdupq_n_u8(15);
    const RowSums zero = {vdupq_n_u16(0), vdupq_n_u16(0), vdupq_n_s8(0)};
    for (int begin = 0; begin < n_blocks; begin += kBlocksPerFlush) {
      const int end = begin + kBlocksPerFlush < n_blocks
                          ? begin + kBlocksPerFlush
                          : n_blocks;
      RowSums upper = zero;  // rows 0..15
      RowSums lower = zero;  // rows 16..31
      for (int block = begin; block < end; ++block) {
#pragma GCC unroll 4
        for (int run = 0; run < 4; ++run) {
          const uint8x16_t u = vld1q_u8(blocks);
          const uint8x16_t v = vld1q_u8(blocks + 16);
          const Table even = LoadTable(tables);
          AddPair(vandq_u8(u, low_nibbles), even, &upper);
          AddPair(vandq_u8(v, low_nibbles), even, &lower);
          const Table odd = LoadTable(tables + kPairTableBytes);
          AddPair(vshrq_n_u8(u, 4), odd, &upper);
          AddPair(vshrq_n_u8(v, 4), odd, &lower);
          blocks += kPanelRows;
          tables += 2 * kPairTableBytes;
        }
      }
      Widen(upper.low0, vget_low_s8(upper.high), sums);
      Widen(upper.low1, vget_high_s8(upper.high), sums + 8);
      Widen(lower.low0, vget_low_s8(lower.high), sums + 16);
      Widen(lower.low1, vget_high_s8(lower.high), sums + 24);
    }
  }

  static void StoreRows(const int32_t* sums, float s, float scale, int n_rows,
                        float* y) {
    for (int r = 0; r < n_rows; r += 4) {
      neon::StoreRows(vld1q_s32(sums + r), /*q_sum=*/0, s, scale, n_rows - r,
                      y + r);
    }
  }
};

}  // namespace

void TernaryMatmulTl1(const TernaryView& w, const QuantizedTokens& x,
                      int row_begin, int row_end, float* y, size_t y_stride) {
  MatmulByLookup<Tl1>(w, x, row_begin, row_end, y, y_stride);
}

}  // namespace tern::neon
