#include <immintrin.h>

#include "kernels/avx2.h"
#include "kernels/lanes_avx2.h"
#include "kernels/ternary_lookup.h"

// Looks up what a group of three weights adds, instead of multiplying: a
// token's activations give each group a table of 16 sums, of which a weight's
// index takes one and its sign gives the negative. pshufb looks up bytes, so a
// table is two planes, of low and of high bytes.
//
// The negative of v is ~v + 1; the ones are counted aside, a byte each.
// |v| <= 3 * 127, hence ~v >= -382, and 80 groups add up to 30560 at most
// before the int16 sums are widened: nothing ever wraps.
//
// The method is that of bitnet.cpp's TL2 kernels (docs/ternary_layout.md).
namespace tern::avx2 {
namespace {

constexpr int kGroupsPerBlock = kGroupBlockColumns / 3;
constexpr int kGroupTableBytes = 32;  // 16 low bytes, then 16 high bytes
// How far ahead a panel is fetched: a third faster from memory.
constexpr int kPrefetchBytes = 2560;
constexpr int kBlocksPerFlush = 5;

// Digit d of i in balanced base 3, digits -1, 0, +1; 0 from 14 on, which never
// occur.
constexpr int BalancedDigit(int i, int d) {
  if (i > 13) return 0;
  const int shifted = i + 13;
  return (d == 0 ? shifted : d == 1 ? shifted / 3 : shifted / 9) % 3 - 1;
}

// Signs by which the pair of the first two activations, and the third and
// nothing, enter each sum of a table.
struct Signs {
  alignas(32) int8_t first_two[32];
  alignas(32) int8_t third[32];
};

constexpr Signs TableSigns() {
  Signs signs = {};
  for (int i = 0; i < 16; ++i) {
    signs.first_two[2 * i] = static_cast<int8_t>(BalancedDigit(i, 0));
    signs.first_two[2 * i + 1] = static_cast<int8_t>(BalancedDigit(i, 1));
    signs.third[2 * i] = static_cast<int8_t>(BalancedDigit(i, 2));
  }
  return signs;
}

constexpr Signs kSigns = TableSigns();

__m256i Load32(const void* at) {
  return _mm256_load_si256(static_cast<const __m256i*>(at));
}

// The tables of n_groups groups of activations at q.
void MakeTables(const int8_t* q, int n_groups, uint8_t* tables) {
  const __m256i first_two = Load32(kSigns.first_two);
  const __m256i third = Load32(kSigns.third);
  const __m256i ones = _mm256_set1_epi8(1);
  // Low bytes of the eight int16 of a lane, then their high bytes.
  const __m256i planes = _mm256_broadcastsi128_si256(
      _mm_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15));
  for (int g = 0; g < n_groups; ++g) {
    int16_t pair;
    __builtin_memcpy(&pair, q + 3 * g, sizeof(pair));
    const __m256i x01 = _mm256_set1_epi16(pair);
    const __m256i x2 = _mm256_set1_epi8(q[3 * g + 2]);
    const __m256i sums = _mm256_add_epi16(
        _mm256_maddubs_epi16(ones, _mm256_sign_epi8(x01, first_two)),
        _mm256_maddubs_epi16(ones, _mm256_sign_epi8(x2, third)));
    _mm256_store_si256(
        reinterpret_cast<__m256i*>(tables + kGroupTableBytes * g),
        _mm256_permute4x64_epi64(_mm256_shuffle_epi8(sums, planes), 0xd8));
  }
}

__m256i Broadcast16(const uint8_t* at) {
  return _mm256_broadcastsi128_si256(
      _mm_load_si128(reinterpret_cast<const __m128i*>(at)));
}

// Sums of 32 rows. Unpacking within 128-bit lanes puts rows 0..7 and 16..23
// into `low`, the others into `high`.
struct RowSums {
  __m256i low, high;  // int16
  __m256i negatives;  // of each row, a byte
};

inline __attribute__((always_inline)) void AddGroup(__m256i indices,
                                                    __m256i negative,
                                                    const uint8_t* table,
                                                    RowSums* sums) {
  const __m256i low_bytes = _mm256_xor_si256(
      _mm256_shuffle_epi8(Broadcast16(table), indices), negative);
  const __m256i high_bytes = _mm256_xor_si256(
      _mm256_shuffle_epi8(Broadcast16(table + 16), indices), negative);
  sums->low =
      _mm256_add_epi16(sums->low, _mm256_unpacklo_epi8(low_bytes, high_bytes));
  sums->high =
      _mm256_add_epi16(sums->high, _mm256_unpackhi_epi8(low_bytes, high_bytes));
  sums->negatives = _mm256_sub_epi8(sums->negatives, negative);
  // Sums are taken one by one: else GCC collects the terms of a half-block, in
  // memory, and adds them up at its end.
  asm("" : "+x"(sums->low), "+x"(sums->high), "+x"(sums->negatives));
}

// Adds 8 int16 and 8 bytes to 8 int32.
void Widen(__m128i sums16, __m128i negatives, int32_t* sums) {
  __m256i* const to = reinterpret_cast<__m256i*>(sums);
  _mm256_store_si256(
      to, _mm256_add_epi32(_mm256_load_si256(to),
                           _mm256_add_epi32(_mm256_cvtepi16_epi32(sums16),
                                            _mm256_cvtepu8_epi32(negatives))));
}

// Adds n_blocks blocks of a panel, whose tables are given, to the sums of its
// 32 rows.
void AddBlocks(const uint8_t* blocks, int n_blocks, const uint8_t* tables,
               int32_t* sums) {
  const __m256i low_nibbles = _mm256_set1_epi8(15);
  const __m256i zero = _mm256_setzero_si256();
  for (int begin = 0; begin < n_blocks; begin += kBlocksPerFlush) {
    const int end =
        begin + kBlocksPerFlush < n_blocks ? begin + kBlocksPerFlush : n_blocks;
    RowSums rows = {zero, zero, zero};
    for (int half = 2 * begin; half < 2 * end; ++half) {
      for (int at = 0; at < kGroupBlockBytes / 2; at += 64) {
        _mm_prefetch(
            reinterpret_cast<const char*>(blocks) + kPrefetchBytes + at,
            _MM_HINT_T0);
      }
      __m256i signs = Load32(blocks);
#pragma GCC unroll 4
      for (int run = 0; run < 4; ++run) {
        const __m256i v = Load32(blocks + 32 * (1 + run));
        AddGroup(_mm256_and_si256(v, low_nibbles),
                 _mm256_cmpgt_epi8(zero, signs), tables, &rows);
        signs = _mm256_add_epi8(signs, signs);
        AddGroup(_mm256_and_si256(_mm256_srli_epi16(v, 4), low_nibbles),
                 _mm256_cmpgt_epi8(zero, signs), tables + kGroupTableBytes,
                 &rows);
        signs = _mm256_add_epi8(signs, signs);
        tables += 2 * kGroupTableBytes;
      }
      blocks += kGroupBlockBytes / 2;
    }
    const __m128i negatives0 = _mm256_castsi256_si128(rows.negatives);
    const __m128i negatives1 = _mm256_extracti128_si256(rows.negatives, 1);
    Widen(_mm256_castsi256_si128(rows.low), negatives0, sums);
    Widen(_mm256_castsi256_si128(rows.high), _mm_srli_si128(negatives0, 8),
          sums + 8);
    Widen(_mm256_extracti128_si256(rows.low, 1), negatives1, sums + 16);
    Widen(_mm256_extracti128_si256(rows.high, 1), _mm_srli_si128(negatives1, 8),
          sums + 24);
  }
}

// y = (float)sum / s * scale.
void StoreRows(const int32_t* sums, float s, float scale, int n_rows,
               float* y) {
  for (int r = 0; r < n_rows; r += 8) {
    const __m256 value = _mm256_mul_ps(
        _mm256_div_ps(_mm256_cvtepi32_ps(Load32(sums + r)), _mm256_set1_ps(s)),
        _mm256_set1_ps(scale));
    if (n_rows - r >= 8) {
      _mm256_storeu_ps(y + r, value);
    } else {
      _mm256_maskstore_ps(y + r, FirstLanes(n_rows - r), value);
    }
  }
}

// See kernels/ternary_lookup.h.
struct Tl2 {
  static constexpr int kColumns = kGroupBlockColumns;
  static constexpr int kBytes = kGroupBlockBytes;
  static constexpr int kTableBytes = kGroupsPerBlock * kGroupTableBytes;
  static constexpr int kBlocksPerChunk = 54;  // 27 KiB

  static void MakeTables(const int8_t* q, int n_blocks, uint8_t* tables) {
    avx2::MakeTables(q, n_blocks * kGroupsPerBlock, tables);
  }
  static void AddBlocks(const uint8_t* blocks, int n_blocks,
                        const uint8_t* tables, int32_t* sums) {
    avx2::AddBlocks(blocks, n_blocks, tables, sums);
  }
  static void StoreRows(const int32_t* sums, float s, float scale, int n_rows,
                        float* y) {
    avx2::StoreRows(sums, s, scale, n_rows, y);
  }
};

}  // namespace

void TernaryMatmulTl2(const TernaryView& w, const QuantizedTokens& x,
                      int row_begin, int row_end, float* y, size_t y_stride) {
  MatmulByLookup<Tl2>(w, x, row_begin, row_end, y, y_stride);
}

}  // namespace tern::avx2
