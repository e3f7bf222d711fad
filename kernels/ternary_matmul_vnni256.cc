#include <immintrin.h>

#include "kernels/lanes_vnni256.h"
#include "kernels/vnni256.h"

// vpdpbusd multiplies unsigned codes {0, 1, 2} by int8 activations; with codes
// W + 1 the sum of q is subtracted once at the end.
namespace tern::TERN_VNNI256 {
namespace {

constexpr int kTokensPerTile = 5;
// Tokens whose activations stay in the L2 cache while all rows pass by.
constexpr int kTokensPerBlock = 96;
constexpr int kHalfPanelRows = kPanelRows / 2;

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

// The accumulators of 8 rows. 16 registers do not hold one for each field of 32
// rows: fields 2 and 3 are shifted down by four bits and share those of fields
// 0 and 1, so that `high` counts four times. |high| <= 2 * 4 * 127 * 2^17 / 2 <
// 2^26 holds for every allowed width.
//
// Masking all four in place for 16 rows at a time saves the shift, but reads
// every other cache line: a quarter of the speed from memory.
struct PairSums {
  __m256i low, high;
};

inline __attribute__((always_inline)) void AddRows(__m256i v, __m256i x0,
                                                   __m256i x1, PairSums* sums) {
  const __m256i mask0 = _mm256_set1_epi8(0x03);
  const __m256i mask1 = _mm256_set1_epi8(0x0c);
  sums->low = Dot(sums->low, _mm256_and_si256(v, mask0), x0);
  sums->high = Dot(sums->high, _mm256_and_si256(v, mask1), x1);
}

// The shift is exact: every term has the factor.
inline __attribute__((always_inline)) __m256i Combine(const PairSums& sums) {
  return _mm256_add_epi32(sums.low, _mm256_srai_epi32(sums.high, 2));
}

// One token against a panel of 32 rows: sums[h] has rows 8h .. 8h + 7.
void MatvecPanel(const uint8_t* panel, int n_blocks, const int8_t* q,
                 __m256i sums[4]) {
  const __m256i zero = _mm256_setzero_si256();
  PairSums a = {zero, zero};
  PairSums b = a;
  PairSums c = a;
  PairSums d = a;
  for (int i = 0; i < n_blocks; ++i) {
    const uint8_t* block = panel + kBlockBytes * i;
    const int8_t* x = q + kBlockColumns * i;
    const __m256i x0 = BroadcastQuad(x);
    const __m256i x1 = BroadcastQuad(x + 4);
    AddRows(Load32(block), x0, x1, &a);
    AddRows(Load32(block + 32), x0, x1, &b);
    AddRows(Load32(block + 64), x0, x1, &c);
    AddRows(Load32(block + 96), x0, x1, &d);
    // The block is loaded again: there is no register to keep it in.
    asm volatile("" ::: "memory");
    const __m256i x2 = BroadcastQuad(x + 8);
    const __m256i x3 = BroadcastQuad(x + 12);
    AddRows(_mm256_srli_epi16(Load32(block), 4), x2, x3, &a);
    AddRows(_mm256_srli_epi16(Load32(block + 32), 4), x2, x3, &b);
    AddRows(_mm256_srli_epi16(Load32(block + 64), 4), x2, x3, &c);
    AddRows(_mm256_srli_epi16(Load32(block + 96), 4), x2, x3, &d);
  }
  sums[0] = Combine(a);
  sums[1] = Combine(b);
  sums[2] = Combine(c);
  sums[3] = Combine(d);
}

// kTokens tokens, `stride` apart, against the 16 rows of a half panel;
// sums[t][h] has rows 8h .. 8h + 7. Here a block is unpacked once for all
// tokens, and a quad of activations is loaded once for two vectors of rows.
// Every loop over top and bottom is unrolled, else GCC keeps them in memory.
template <int kTokens>
void MatmulTile(const uint8_t* half, int n_blocks, const int8_t* q,
                size_t stride, __m256i (*sums)[2]) {
  const __m256i mask = _mm256_set1_epi8(0x03);
  __m256i top[kTokens];
  __m256i bottom[kTokens];
#pragma GCC unroll 5
  for (int t = 0; t < kTokens; ++t) top[t] = bottom[t] = _mm256_setzero_si256();
  for (int b = 0; b < n_blocks; ++b) {
    __m256i v0 = Load32(half + kBlockBytes * b);
    __m256i v1 = Load32(half + kBlockBytes * b + 32);
    const int8_t* x = q + kBlockColumns * b;
#pragma GCC unroll 4
    for (int f = 0; f < 4; ++f) {
      const __m256i u0 = _mm256_and_si256(v0, mask);
      const __m256i u1 = _mm256_and_si256(v1, mask);
#pragma GCC unroll 5
      for (int t = 0; t < kTokens; ++t) {
        const __m256i quad = BroadcastQuad(x + t * stride + 4 * f);
        top[t] = Dot(top[t], u0, quad);
        bottom[t] = Dot(bottom[t], u1, quad);
      }
      v0 = _mm256_srli_epi16(v0, 2);
      v1 = _mm256_srli_epi16(v1, 2);
    }
  }
#pragma GCC unroll 5
  for (int t = 0; t < kTokens; ++t) {
    sums[t][0] = top[t];
    sums[t][1] = bottom[t];
  }
}

using TileFunction = void (*)(const uint8_t*, int, const int8_t*, size_t,
                              __m256i (*)[2]);
constexpr TileFunction kTiles[kTokensPerTile + 1] = {
    nullptr,       MatmulTile<1>, MatmulTile<2>,
    MatmulTile<3>, MatmulTile<4>, MatmulTile<5>,
};

// Tokens [token_begin, token_end) against all rows.
void MatmulTokens(const TernaryView& w, const QuantizedTokens& x,
                  int token_begin, int token_end, int row_begin, int row_end,
                  float* y, size_t y_stride) {
  const int n_blocks = w.n_in / kBlockColumns;
  const size_t panel_bytes = static_cast<size_t>(n_blocks) * kBlockBytes;
  const int n_tokens = token_end - token_begin;
  const int n_tiles = (n_tokens + kTokensPerTile - 1) / kTokensPerTile;
  for (int row = row_begin; row < row_end; row += kHalfPanelRows) {
    const uint8_t* half = w.packed + row / kPanelRows * panel_bytes +
                          row % kPanelRows / kHalfPanelRows * 64;
    for (int tile = 0; tile < n_tiles; ++tile) {
      // Tiles of nearly equal size, since small ones are slow.
      const int begin = token_begin + n_tokens * tile / n_tiles;
      const int end = token_begin + n_tokens * (tile + 1) / n_tiles;
      __m256i sums[kTokensPerTile][2];
      kTiles[end - begin](half, n_blocks,
                          x.q + static_cast<size_t>(begin) * x.n, x.n, sums);
      for (int t = begin; t < end; ++t) {
        for (int h = 0; h < 2 && row + 8 * h < row_end; ++h) {
          StoreRows(sums[t - begin][h], x.sum[t], x.s[t], w.scale,
                    row_end - row - 8 * h, y + t * y_stride + row + 8 * h);
        }
      }
    }
  }
}

void Matvec(const TernaryView& w, const QuantizedTokens& x, int row_begin,
            int row_end, float* y, size_t y_stride) {
  const int n_blocks = w.n_in / kBlockColumns;
  const size_t panel_bytes = static_cast<size_t>(n_blocks) * kBlockBytes;
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
}

}  // namespace

void TernaryMatmul(const TernaryView& w, const QuantizedTokens& x,
                   int row_begin, int row_end, float* y, size_t y_stride) {
  if (x.n_tokens < 3) {
    Matvec(w, x, row_begin, row_end, y, y_stride);
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

}  // namespace tern::TERN_VNNI256
