#include <immintrin.h>

#include "kernels/avx2.h"
#include "kernels/lanes_avx2.h"

// Codes {0, 1, 2} meet int8 activations in maddubs, whose int16 pair sums are
// at most 508 in magnitude (2032 for a code left in bits 3:2). They are added
// in int16 as often as fits 32767 and then widened, so nothing ever wraps. With
// codes W + 1 the sum of q is subtracted once at the end.
namespace tern::avx2 {
namespace {

constexpr int kTokensPerTile = 8;
// Tokens whose activations stay in the L2 cache while all rows pass by.
constexpr int kTokensPerBlock = 96;

// Widens 16 int16 to 8 int32 by adding pairs.
__m256i AddPairs(__m256i v) {
  return _mm256_madd_epi16(v, _mm256_set1_epi16(1));
}

// y = (float)(sum - q_sum) / s * scale, for up to 8 rows.
void StoreRows(__m256i sum, int32_t q_sum, float s, float scale, int n_rows,
               float* y) {
  const __m256i exact = _mm256_sub_epi32(sum, _mm256_set1_epi32(q_sum));
  const __m256 value =
      _mm256_mul_ps(_mm256_div_ps(_mm256_cvtepi32_ps(exact), _mm256_set1_ps(s)),
                    _mm256_set1_ps(scale));
  if (n_rows >= 8) {
    _mm256_storeu_ps(y, value);
  } else {
    _mm256_maskstore_ps(y, FirstLanes(n_rows), value);
  }
}

// One token against a panel of 32 rows: sums[h] has rows 8h .. 8h + 7.
void MatvecPanel(const uint8_t* panel, int n_blocks, const int8_t* q,
                 __m256i sums[4]) {
  // 8 blocks add 16 products of up to 2032.
  constexpr int kBlocksPerFlush = 8;
  const __m256i mask0 = _mm256_set1_epi8(0x03);
  const __m256i mask1 = _mm256_set1_epi8(0x0c);
  for (int h = 0; h < 4; ++h) sums[h] = _mm256_setzero_si256();
  for (int begin = 0; begin < n_blocks; begin += kBlocksPerFlush) {
    const int end =
        begin + kBlocksPerFlush < n_blocks ? begin + kBlocksPerFlush : n_blocks;
    __m256i low[4];   // from fields 0 and 2, in bits 1:0
    __m256i high[4];  // from fields 1 and 3, in bits 3:2, hence four times
#pragma GCC unroll 4
    for (int h = 0; h < 4; ++h) low[h] = high[h] = _mm256_setzero_si256();
    for (int b = begin; b < end; ++b) {
      const __m256i x0 = BroadcastQuad(q + 16 * b);
      const __m256i x1 = BroadcastQuad(q + 16 * b + 4);
      const __m256i x2 = BroadcastQuad(q + 16 * b + 8);
      const __m256i x3 = BroadcastQuad(q + 16 * b + 12);
      const __m256i* block =
          reinterpret_cast<const __m256i*>(panel + kBlockBytes * b);
#pragma GCC unroll 4
      for (int h = 0; h < 4; ++h) {
        const __m256i v = _mm256_load_si256(block + h);
        const __m256i u = _mm256_srli_epi16(v, 4);
        const __m256i p0 = _mm256_maddubs_epi16(_mm256_and_si256(v, mask0), x0);
        const __m256i p1 = _mm256_maddubs_epi16(_mm256_and_si256(v, mask1), x1);
        const __m256i p2 = _mm256_maddubs_epi16(_mm256_and_si256(u, mask0), x2);
        const __m256i p3 = _mm256_maddubs_epi16(_mm256_and_si256(u, mask1), x3);
        low[h] = _mm256_add_epi16(low[h], _mm256_add_epi16(p0, p2));
        high[h] = _mm256_add_epi16(high[h], _mm256_add_epi16(p1, p3));
      }
    }
    // Unrolled as every loop over low and high is: else GCC keeps them in
    // memory.
#pragma GCC unroll 4
    for (int h = 0; h < 4; ++h) {
      const __m256i quarters = _mm256_srai_epi32(AddPairs(high[h]), 2);
      sums[h] = _mm256_add_epi32(sums[h],
                                 _mm256_add_epi32(AddPairs(low[h]), quarters));
    }
  }
}

// kTokens tokens, `stride` apart, against 8 rows: rows8 is the panel plus 32
// bytes for every 8 rows skipped.
template <int kTokens>
void MatmulTile(const uint8_t* rows8, int n_blocks, const int8_t* q,
                size_t stride, __m256i* sums) {
  // 16 blocks add 64 products of up to 508.
  constexpr int kBlocksPerFlush = 16;
  const __m256i mask = _mm256_set1_epi8(0x03);
  for (int t = 0; t < kTokens; ++t) sums[t] = _mm256_setzero_si256();
  for (int begin = 0; begin < n_blocks; begin += kBlocksPerFlush) {
    const int end =
        begin + kBlocksPerFlush < n_blocks ? begin + kBlocksPerFlush : n_blocks;
    __m256i acc[kTokens];
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) acc[t] = _mm256_setzero_si256();
    for (int b = begin; b < end; ++b) {
      const __m256i v = _mm256_load_si256(
          reinterpret_cast<const __m256i*>(rows8 + kBlockBytes * b));
      const __m256i u0 = _mm256_and_si256(v, mask);
      const __m256i u1 = _mm256_and_si256(_mm256_srli_epi16(v, 2), mask);
      const __m256i u2 = _mm256_and_si256(_mm256_srli_epi16(v, 4), mask);
      const __m256i u3 = _mm256_and_si256(_mm256_srli_epi16(v, 6), mask);
#pragma GCC unroll 8
      for (int t = 0; t < kTokens; ++t) {
        const int8_t* x = q + t * stride + 16 * b;
        __m256i p = _mm256_maddubs_epi16(u0, BroadcastQuad(x));
        p = _mm256_add_epi16(p, _mm256_maddubs_epi16(u1, BroadcastQuad(x + 4)));
        acc[t] = _mm256_add_epi16(acc[t], p);
        p = _mm256_maddubs_epi16(u2, BroadcastQuad(x + 8));
        p = _mm256_add_epi16(p,
                             _mm256_maddubs_epi16(u3, BroadcastQuad(x + 12)));
        acc[t] = _mm256_add_epi16(acc[t], p);
      }
    }
    // Unrolled as every loop over acc is: else GCC keeps it in memory.
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) {
      sums[t] = _mm256_add_epi32(sums[t], AddPairs(acc[t]));
    }
  }
}

using TileFunction = void (*)(const uint8_t*, int, const int8_t*, size_t,
                              __m256i*);
constexpr TileFunction kTiles[kTokensPerTile + 1] = {
    nullptr,       MatmulTile<1>, MatmulTile<2>, MatmulTile<3>, MatmulTile<4>,
    MatmulTile<5>, MatmulTile<6>, MatmulTile<7>, MatmulTile<8>,
};

// Tokens [token_begin, token_end) against all rows.
void MatmulTokens(const TernaryView& w, const QuantizedTokens& x,
                  int token_begin, int token_end, int row_begin, int row_end,
                  float* y, size_t y_stride) {
  const int n_blocks = w.n_in / kBlockColumns;
  const size_t panel_bytes = static_cast<size_t>(n_blocks) * kBlockBytes;
  const int n_tokens = token_end - token_begin;
  const int n_tiles = (n_tokens + kTokensPerTile - 1) / kTokensPerTile;
  for (int row = row_begin; row < row_end; row += 8) {
    const uint8_t* rows8 =
        w.packed + row / kPanelRows * panel_bytes + row % kPanelRows / 8 * 32;
    for (int tile = 0; tile < n_tiles; ++tile) {
      // Tiles of nearly equal size: none has a single token.
      const int begin = token_begin + n_tokens * tile / n_tiles;
      const int end = token_begin + n_tokens * (tile + 1) / n_tiles;
      __m256i sums[kTokensPerTile];
      kTiles[end - begin](rows8, n_blocks,
                          x.q + static_cast<size_t>(begin) * x.n, x.n, sums);
      for (int t = begin; t < end; ++t) {
        StoreRows(sums[t - begin], x.sum[t], x.s[t], w.scale, row_end - row,
                  y + t * y_stride + row);
      }
    }
  }
}

}  // namespace

void TernaryMatmul(const TernaryView& w, const QuantizedTokens& x,
                   int row_begin, int row_end, float* y, size_t y_stride) {
  const int n_blocks = w.n_in / kBlockColumns;
  const size_t panel_bytes = static_cast<size_t>(n_blocks) * kBlockBytes;
  if (x.n_tokens < 3) {
    for (int row = row_begin; row < row_end; row += kPanelRows) {
      const uint8_t* panel = w.packed + row / kPanelRows * panel_bytes;
      for (int t = 0; t < x.n_tokens; ++t) {
        __m256i sums[4];
        MatvecPanel(panel, n_blocks, x.q + static_cast<size_t>(t) * x.n, sums);
        for (int h = 0; h < 4 && row + 8 * h < row_end; ++h) {
          StoreRows(sums[h], x.sum[t], x.s[t], w.scale, row_end - row - 8 * h,
                    y + t * y_stride + row + 8 * h);
        }
      }
    }
    return;
  }
  const int n_token_blocks =
      (x.n_tokens + kTokensPerBlock - 1) / kTokensPerBlock;
  for (int i = 0; i < n_token_blocks; ++i) {
    const auto bound = [&](int index) {
      return static_cast<int>(static_cast<int64_t>(x.n_tokens) * index /
                              n_token_blocks);
    };
    MatmulTokens(w, x, bound(i), bound(i + 1), row_begin, row_end, y, y_stride);
  }
}

}  // namespace tern::avx2
