#include <immintrin.h>

#include "kernels/avx512.h"
#include "kernels/lanes_avx512.h"

// vpdpbusd multiplies unsigned codes {0, 1, 2} by int8 activations; with codes
// W + 1 the sum of q is subtracted once at the end.
namespace tern::avx512 {
namespace {

// Tokens whose activations stay in the L2 cache while all rows pass by.
constexpr int kTokensPerBlock = 96;
constexpr int kHalfPanelRows = kPanelRows / 2;
// How far ahead weights that are read in order are asked for: the hardware
// alone reaches nine tenths of memory's speed.
constexpr int kAheadBytes = 5120;

// The four accumulators of 16 rows, one per field of a code byte. Fields are
// masked out and not shifted down, so that they count 1, 4, 16 and 64 times;
// |acc| <= 2 * 64 * 127 * 2^17 / 4 < 2^30 holds for every allowed width.
struct FieldSums {
  __m512i f0, f1, f2, f3;
};

inline __attribute__((always_inline)) FieldSums ZeroSums() {
  const __m512i zero = _mm512_setzero_si512();
  return {zero, zero, zero, zero};
}

inline __attribute__((always_inline)) void AddBlock(__m512i v, const int8_t* q,
                                                    FieldSums* sums) {
  const __m512i mask0 = _mm512_set1_epi8(0x03);
  const __m512i mask1 = _mm512_set1_epi8(0x0c);
  const __m512i mask2 = _mm512_set1_epi8(0x30);
  const __m512i mask3 = _mm512_set1_epi8(static_cast<char>(0xc0));
  sums->f0 = DotQuad(sums->f0, _mm512_and_si512(v, mask0), q);
  sums->f1 = DotQuad(sums->f1, _mm512_and_si512(v, mask1), q + 4);
  sums->f2 = DotQuad(sums->f2, _mm512_and_si512(v, mask2), q + 8);
  sums->f3 = DotQuad(sums->f3, _mm512_and_si512(v, mask3), q + 12);
}

// The shifts are exact: every term of an accumulator has the factor.
inline __attribute__((always_inline)) __m512i Combine(const FieldSums& sums) {
  return _mm512_add_epi32(
      _mm512_add_epi32(sums.f0, _mm512_srai_epi32(sums.f1, 2)),
      _mm512_add_epi32(_mm512_srai_epi32(sums.f2, 4),
                       _mm512_srai_epi32(sums.f3, 6)));
}

// One or two tokens, `stride` apart, against a panel of 32 rows; sums[t][half].
// Weights are read once, in one sequential stream.
template <int kTokens>
void MatvecPanel(const uint8_t* panel, int n_blocks, const int8_t* q,
                 size_t stride, __m512i (*sums)[2]) {
  FieldSums top0 = ZeroSums();
  FieldSums bottom0 = ZeroSums();
  FieldSums top1 = ZeroSums();
  FieldSums bottom1 = ZeroSums();
  for (int b = 0; b < n_blocks; ++b) {
    const uint8_t* const block = panel + kBlockBytes * b;
    _mm_prefetch(block + kAheadBytes, _MM_HINT_T0);
    _mm_prefetch(block + kAheadBytes + 64, _MM_HINT_T0);
    const __m512i top = _mm512_load_si512(block);
    const __m512i bottom = _mm512_load_si512(block + 64);
    AddBlock(top, q + kBlockColumns * b, &top0);
    AddBlock(bottom, q + kBlockColumns * b, &bottom0);
    if (kTokens == 2) {
      AddBlock(top, q + stride + kBlockColumns * b, &top1);
      AddBlock(bottom, q + stride + kBlockColumns * b, &bottom1);
    }
  }
  sums[0][0] = Combine(top0);
  sums[0][1] = Combine(bottom0);
  if (kTokens == 2) {
    sums[1][0] = Combine(top1);
    sums[1][1] = Combine(bottom1);
  }
}

template <int kTokens>
void Matvec(const TernaryView& w, const QuantizedTokens& x, int row_begin,
            int row_end, float* y, size_t y_stride) {
  const int n_blocks = w.n_in / kBlockColumns;
  const size_t panel_bytes = static_cast<size_t>(n_blocks) * kBlockBytes;
  for (int row = row_begin; row < row_end; row += kPanelRows) {
    __m512i sums[kTokens][2];
    MatvecPanel<kTokens>(w.packed + row / kPanelRows * panel_bytes, n_blocks,
                         x.q, x.n, sums);
    for (int t = 0; t < kTokens; ++t) {
      float* out = y + t * y_stride + row;
      const int n_rows = row_end - row;
      StoreRows(sums[t][0], x.sum[t], x.s[t], w.scale, n_rows, out);
      StoreRows(sums[t][1], x.sum[t], x.s[t], w.scale, n_rows - kHalfPanelRows,
                out + kHalfPanelRows);
    }
  }
}

// kTokens tokens, `stride` apart, against a panel of 32 rows; sums[t][half].
// Here a block is unpacked once for all tokens, and a quad of activations is
// loaded once for both halves: tiles of 16 rows load one per multiplication and
// are a tenth slower with many tokens, half as fast with three.
// Every loop over top and bottom is unrolled, else GCC keeps them in memory.
//
// Meanwhile what lies from `ahead` on comes to the second cache: per block one
// cache line, which makes half a panel, or two, which make a panel.
template <int kTokens>
void MatmulTile(const uint8_t* panel, int n_blocks, const int8_t* q,
                size_t stride, const uint8_t* ahead, int ahead_lines,
                __m512i (*sums)[2]) {
  const __m512i mask = _mm512_set1_epi8(0x03);
  __m512i top[kTokens];
  __m512i bottom[kTokens];
#pragma GCC unroll 12
  for (int t = 0; t < kTokens; ++t) top[t] = bottom[t] = _mm512_setzero_si512();
  for (int b = 0; b < n_blocks; ++b) {
    __m512i v0 = _mm512_load_si512(panel + kBlockBytes * b);
    __m512i v1 = _mm512_load_si512(panel + kBlockBytes * b + 64);
    const int8_t* x = q + kBlockColumns * b;
    _mm_prefetch(ahead, _MM_HINT_T1);
    ahead += 64 * ahead_lines;
    _mm_prefetch(ahead - 64, _MM_HINT_T1);
#pragma GCC unroll 4
    for (int f = 0; f < 4; ++f) {
      const __m512i u0 = _mm512_and_si512(v0, mask);
      const __m512i u1 = _mm512_and_si512(v1, mask);
#pragma GCC unroll 12
      for (int t = 0; t < kTokens; ++t) {
        const __m512i quad = BroadcastQuad(x + t * stride + 4 * f);
        top[t] = _mm512_dpbusd_epi32(top[t], u0, quad);
        bottom[t] = _mm512_dpbusd_epi32(bottom[t], u1, quad);
      }
      v0 = _mm512_srli_epi16(v0, 2);
      v1 = _mm512_srli_epi16(v1, 2);
    }
  }
#pragma GCC unroll 12
  for (int t = 0; t < kTokens; ++t) {
    sums[t][0] = top[t];
    sums[t][1] = bottom[t];
  }
}

using TileFunction = void (*)(const uint8_t*, int, const int8_t*, size_t,
                              const uint8_t*, int, __m512i (*)[2]);
constexpr TileFunction kTiles[kTokensPerTile + 1] = {
    nullptr,        MatmulTile<1>, MatmulTile<2>,  MatmulTile<3>,
    MatmulTile<4>,  MatmulTile<5>, MatmulTile<6>,  MatmulTile<7>,
    MatmulTile<8>,  MatmulTile<9>, MatmulTile<10>, MatmulTile<11>,
    MatmulTile<12>,
};

// Tokens [token_begin, token_end) against all rows.
void MatmulTokens(const TernaryView& w, const QuantizedTokens& x,
                  int token_begin, int token_end, int row_begin, int row_end,
                  float* y, size_t y_stride) {
  const int n_blocks = w.n_in / kBlockColumns;
  const size_t panel_bytes = static_cast<size_t>(n_blocks) * kBlockBytes;
  const int n_tokens = token_end - token_begin;
  const int n_tiles = TileCount(n_tokens);
  for (int row = row_begin; row < row_end; row += kPanelRows) {
    const uint8_t* panel = w.packed + row / kPanelRows * panel_bytes;
    for (int tile = 0; tile < n_tiles; ++tile) {
      // Tiles of nearly equal size, since small ones are slow.
      const int begin = token_begin + n_tokens * tile / n_tiles;
      const int end = token_begin + n_tokens * (tile + 1) / n_tiles;
      // A tile alone asks for what it reads itself soon. Of several tiles the
      // first would find a panel in memory and the others in the cache, so that
      // they ask for the next panel, the last tile for its second half. Nothing
      // is read beyond the last panel.
      const bool alone = n_tiles == 1;
      const uint8_t* ahead = panel + (alone ? kAheadBytes : panel_bytes);
      if (!alone && tile == n_tiles - 1) ahead += panel_bytes / 2;
      __m512i sums[kTokensPerTile][2];
      kTiles[end - begin](panel, n_blocks,
                          x.q + static_cast<size_t>(begin) * x.n, x.n, ahead,
                          alone ? 2 : 1, sums);
      for (int t = begin; t < end; ++t) {
        float* out = y + t * y_stride + row;
        const int n_rows = row_end - row;
        StoreRows(sums[t - begin][0], x.sum[t], x.s[t], w.scale, n_rows, out);
        StoreRows(sums[t - begin][1], x.sum[t], x.s[t], w.scale,
                  n_rows - kHalfPanelRows, out + kHalfPanelRows);
      }
    }
  }
}

}  // namespace

void TernaryMatmul(const TernaryView& w, const QuantizedTokens& x,
                   int row_begin, int row_end, float* y, size_t y_stride) {
  if (x.n_tokens == 1) {
    Matvec<1>(w, x, row_begin, row_end, y, y_stride);
    return;
  }
  if (x.n_tokens == 2) {
    Matvec<2>(w, x, row_begin, row_end, y, y_stride);
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

}  // namespace tern::avx512
