#include <immintrin.h>

#include "kernels/avx512vbmi.h"
#include "kernels/lanes_avx512.h"

// Base 3 costs one permutation of bytes by a table more than two bits do: a
// code of five bits, 27 values, becomes a byte of three 2-bit fields, which are
// then multiplied as in kernels/ternary_matmul_avx512.cc.
namespace tern::avx512vbmi {
namespace {

using avx512::BroadcastQuad;
using avx512::DotQuad;
using avx512::kTokensPerTile;
using avx512::StoreRows;

constexpr int kHalfPanelRows = kPanelRows / 2;
constexpr int kRuns = 8;  // of 64 codes in a block
constexpr int kQuadsPerBlock = kGroupBlockColumns / 4;
// How far ahead a panel is fetched. Unpacking leaves the core too little room
// to run ahead by itself: one token, from memory, is a third slower without it.
constexpr int kPrefetchBytes = 5120;

// Up to so many tokens, unpacking for each pair anew is faster than unpacking
// to memory once.
constexpr int kTokensInPairs = 4;
// Tokens whose activations stay in the L2 cache while all rows pass by.
constexpr int kTokensPerBlock = 96;
// Blocks of a panel unpacked at a time for many tokens: 12 KiB.
constexpr int kSliceBlocks = 8;

// What byte `code` of a table of 64 becomes. Bit 5 of an index is the lowest of
// the next code, hence ignored.
constexpr int Digit(int code, int f) {
  const int low = code % 32;
  return (f == 0 ? low : f == 1 ? low / 3 : low / 9) % 3;
}

struct Table {
  alignas(64) uint8_t bytes[64];
};

// All digits, two bits each.
constexpr Table AllDigits() {
  Table table = {};
  for (int i = 0; i < 64; ++i) {
    table.bytes[i] =
        static_cast<uint8_t>(Digit(i, 0) | Digit(i, 1) << 2 | Digit(i, 2) << 4);
  }
  return table;
}

constexpr Table OneDigit(int f) {
  Table table = {};
  for (int i = 0; i < 64; ++i) {
    table.bytes[i] = static_cast<uint8_t>(Digit(i, f));
  }
  return table;
}

constexpr Table kAllDigits = AllDigits();
constexpr Table kOneDigit[3] = {OneDigit(0), OneDigit(1), OneDigit(2)};

// Asks for a block, which need not be there.
inline __attribute__((always_inline)) void Prefetch(const uint8_t* block) {
#pragma GCC unroll 5
  for (int line = 0; line < 5; ++line) {
    _mm_prefetch(reinterpret_cast<const char*>(block) + 64 * line, _MM_HINT_T0);
  }
}

// The runs of a block as bytes whose low five bits are codes. A run that begins
// in the upper half of a line is shifted together from two; the others are
// taken where they are.
struct Runs {
  __m512i r0, r1, r2, r3, r4, r5, r6, r7;
};

inline __attribute__((always_inline)) Runs LoadRuns(const uint8_t* block) {
  // Byte b of a word begins at its bit 5b, or so many bits further up.
  const __m512i at0 = _mm512_set1_epi64(0x231e19140f0a0500);
  const __m512i at8 = _mm512_set1_epi64(0x2b26211c17120d08);
  const __m512i at16 = _mm512_set1_epi64(0x332e29241f1a1510);
  const __m512i at24 = _mm512_set1_epi64(0x3b36312c27221d18);
  const __m512i line0 = _mm512_load_si512(block);
  const __m512i line1 = _mm512_load_si512(block + 64);
  const __m512i line2 = _mm512_load_si512(block + 128);
  const __m512i line3 = _mm512_load_si512(block + 192);
  const __m512i line4 = _mm512_load_si512(block + 256);
  const auto runs = [](__m512i at, __m512i words) {
    return _mm512_multishift_epi64_epi8(at, words);
  };
  return {runs(at0, line0),
          runs(at0, _mm512_shrdi_epi64(line0, line1, 40)),
          runs(at16, line1),
          runs(at0, _mm512_shrdi_epi64(line1, line2, 56)),
          runs(at0, _mm512_shrdi_epi64(line2, line3, 32)),
          runs(at8, line3),
          runs(at0, _mm512_shrdi_epi64(line3, line4, 48)),
          runs(at24, line4)};
}

// The three accumulators of 16 rows, one per field of a decoded byte, which
// count 1, 4 and 16 times: |acc| <= 2 * 16 * 127 * 2^17 / 3 < 2^28.
struct FieldSums {
  __m512i f0, f1, f2;
};

inline __attribute__((always_inline)) FieldSums ZeroSums() {
  const __m512i zero = _mm512_setzero_si512();
  return {zero, zero, zero};
}

// Adds a run: 12 columns of 16 rows, whose activations are at q.
inline __attribute__((always_inline)) void AddRun(__m512i v, const int8_t* q,
                                                  FieldSums* sums) {
  const __m512i mask0 = _mm512_set1_epi8(0x03);
  const __m512i mask1 = _mm512_set1_epi8(0x0c);
  const __m512i mask2 = _mm512_set1_epi8(0x30);
  sums->f0 = DotQuad(sums->f0, _mm512_and_si512(v, mask0), q);
  sums->f1 = DotQuad(sums->f1, _mm512_and_si512(v, mask1), q + 4);
  sums->f2 = DotQuad(sums->f2, _mm512_and_si512(v, mask2), q + 8);
}

// The shifts are exact: every term of an accumulator has the factor.
inline __attribute__((always_inline)) __m512i Combine(const FieldSums& sums) {
  return _mm512_add_epi32(
      _mm512_add_epi32(sums.f0, _mm512_srai_epi32(sums.f1, 2)),
      _mm512_srai_epi32(sums.f2, 4));
}

// The accumulators of a panel.
struct PanelSums {
  FieldSums top, bottom;
};

// A block against one token or two, whose 48 activations are at q0 and q1.
template <int kTokens>
inline __attribute__((always_inline)) void AddBlock(const uint8_t* block,
                                                    const int8_t* q0,
                                                    const int8_t* q1,
                                                    PanelSums* sums0,
                                                    PanelSums* sums1) {
  const __m512i table = _mm512_load_si512(kAllDigits.bytes);
  const Runs runs = LoadRuns(block);
  Prefetch(block + kPrefetchBytes);
  const auto add = [&](__m512i top_codes, __m512i bottom_codes, int column)
      __attribute__((always_inline)) {
    const __m512i top = _mm512_permutexvar_epi8(top_codes, table);
    const __m512i bottom = _mm512_permutexvar_epi8(bottom_codes, table);
    AddRun(top, q0 + column, &sums0->top);
    AddRun(bottom, q0 + column, &sums0->bottom);
    if (kTokens == 2) {
      AddRun(top, q1 + column, &sums1->top);
      AddRun(bottom, q1 + column, &sums1->bottom);
    }
  };
  add(runs.r0, runs.r1, 0);
  add(runs.r2, runs.r3, 12);
  add(runs.r4, runs.r5, 24);
  add(runs.r6, runs.r7, 36);
}

// One or two tokens, `stride` apart, against a panel of 32 rows; sums[t][half].
// tails[t]: the activations of the last block, if it lacks columns, and zeros.
template <int kTokens>
void MatvecPanel(const uint8_t* panel, int n_in, const int8_t* q, size_t stride,
                 const int8_t (*tails)[kGroupBlockColumns],
                 __m512i (*sums)[2]) {
  PanelSums sums0 = {ZeroSums(), ZeroSums()};
  PanelSums sums1 = {ZeroSums(), ZeroSums()};
  const int8_t* const end = q + n_in / kGroupBlockColumns * kGroupBlockColumns;
  for (; q != end; q += kGroupBlockColumns) {
    AddBlock<kTokens>(panel, q, q + stride, &sums0, &sums1);
    panel += kGroupBlockBytes;
  }
  if (n_in % kGroupBlockColumns != 0) {
    AddBlock<kTokens>(panel, tails[0], tails[1], &sums0, &sums1);
  }
  sums[0][0] = Combine(sums0.top);
  sums[0][1] = Combine(sums0.bottom);
  if (kTokens == 2) {
    sums[1][0] = Combine(sums1.top);
    sums[1][1] = Combine(sums1.bottom);
  }
}

// A few tokens, a pair at a time. Later pairs find the panel in the first
// cache.
void MatvecPairs(const TernaryView& w, const QuantizedTokens& x, int row_begin,
                 int row_end, float* y, size_t y_stride) {
  const size_t panel_bytes =
      static_cast<size_t>(w.n_in + kGroupBlockColumns - 1) /
      kGroupBlockColumns * kGroupBlockBytes;
  const int n_tail = w.n_in % kGroupBlockColumns;
  int8_t tails[kTokensInPairs][kGroupBlockColumns] = {};
  for (int t = 0; t < x.n_tokens; ++t) {
    __builtin_memcpy(tails[t], x.q + static_cast<size_t>(t + 1) * x.n - n_tail,
                     n_tail);
  }
  for (int row = row_begin; row < row_end; row += kPanelRows) {
    const uint8_t* panel = w.packed + row / kPanelRows * panel_bytes;
    for (int first = 0; first < x.n_tokens; first += 2) {
      const int8_t* q = x.q + static_cast<size_t>(first) * x.n;
      const int n_tokens = x.n_tokens - first < 2 ? 1 : 2;
      __m512i sums[2][2];
      if (n_tokens == 1) {
        MatvecPanel<1>(panel, w.n_in, q, x.n, tails + first, sums);
      } else {
        MatvecPanel<2>(panel, w.n_in, q, x.n, tails + first, sums);
      }
      for (int i = 0; i < n_tokens; ++i) {
        const int t = first + i;
        float* out = y + t * y_stride + row;
        const int n_rows = row_end - row;
        StoreRows(sums[i][0], x.sum[t], x.s[t], w.scale, n_rows, out);
        StoreRows(sums[i][1], x.sum[t], x.s[t], w.scale,
                  n_rows - kHalfPanelRows, out + kHalfPanelRows);
      }
    }
  }
}

// A slice of a panel unpacked to a byte a weight, in code w + 1: [quad of
// columns][half][64].
struct Slice {
  alignas(64) uint8_t bytes[kSliceBlocks * kQuadsPerBlock][2][64];
};

void Unpack(const uint8_t* blocks, int n_blocks, Slice* slice) {
  const __m512i digit0 = _mm512_load_si512(kOneDigit[0].bytes);
  const __m512i digit1 = _mm512_load_si512(kOneDigit[1].bytes);
  const __m512i digit2 = _mm512_load_si512(kOneDigit[2].bytes);
  for (int b = 0; b < n_blocks; ++b) {
    const uint8_t* block = blocks + static_cast<size_t>(b) * kGroupBlockBytes;
    Prefetch(block + kPrefetchBytes);
    const Runs runs = LoadRuns(block);
    const __m512i all[kRuns] = {runs.r0, runs.r1, runs.r2, runs.r3,
                                runs.r4, runs.r5, runs.r6, runs.r7};
#pragma GCC unroll 8
    for (int n = 0; n < kRuns; ++n) {
      uint8_t(*quads)[2][64] = slice->bytes + b * kQuadsPerBlock + n / 2 * 3;
      _mm512_store_si512(quads[0][n % 2],
                         _mm512_permutexvar_epi8(all[n], digit0));
      _mm512_store_si512(quads[1][n % 2],
                         _mm512_permutexvar_epi8(all[n], digit1));
      _mm512_store_si512(quads[2][n % 2],
                         _mm512_permutexvar_epi8(all[n], digit2));
    }
  }
}

// Adds kTokens tokens, `stride` apart, against n_quads quads of a slice to
// sums[t][half]. Every loop over top and bottom is unrolled, else GCC keeps
// them in memory.
template <int kTokens>
void MatmulTile(const Slice& slice, int n_quads, const int8_t* q, size_t stride,
                __m512i (*sums)[2]) {
  __m512i top[kTokens];
  __m512i bottom[kTokens];
#pragma GCC unroll 12
  for (int t = 0; t < kTokens; ++t) {
    top[t] = sums[t][0];
    bottom[t] = sums[t][1];
  }
  for (int i = 0; i < n_quads; ++i) {
    const __m512i u0 = _mm512_load_si512(slice.bytes[i][0]);
    const __m512i u1 = _mm512_load_si512(slice.bytes[i][1]);
#pragma GCC unroll 12
    for (int t = 0; t < kTokens; ++t) {
      const __m512i quad = BroadcastQuad(q + t * stride + 4 * i);
      top[t] = _mm512_dpbusd_epi32(top[t], u0, quad);
      bottom[t] = _mm512_dpbusd_epi32(bottom[t], u1, quad);
    }
  }
#pragma GCC unroll 12
  for (int t = 0; t < kTokens; ++t) {
    sums[t][0] = top[t];
    sums[t][1] = bottom[t];
  }
}

using TileFunction = void (*)(const Slice&, int, const int8_t*, size_t,
                              __m512i (*)[2]);
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
  constexpr int kSliceColumns = kSliceBlocks * kGroupBlockColumns;
  const int n_blocks = (w.n_in + kGroupBlockColumns - 1) / kGroupBlockColumns;
  const size_t panel_bytes = static_cast<size_t>(n_blocks) * kGroupBlockBytes;
  const int n_tokens = token_end - token_begin;
  const int n_tiles = (n_tokens + kTokensPerTile - 1) / kTokensPerTile;
  Slice slice;
  __m512i sums[kTokensPerBlock][2];
  for (int row = row_begin; row < row_end; row += kPanelRows) {
    const uint8_t* panel = w.packed + row / kPanelRows * panel_bytes;
    for (int t = 0; t < n_tokens; ++t) {
      sums[t][0] = sums[t][1] = _mm512_setzero_si512();
    }
    for (int first = 0; first < n_blocks; first += kSliceBlocks) {
      const int column = first * kGroupBlockColumns;
      const int slice_blocks =
          n_blocks - first < kSliceBlocks ? n_blocks - first : kSliceBlocks;
      // The activations of columns that the last block lacks are not there.
      const int n_columns =
          w.n_in - column < kSliceColumns ? w.n_in - column : kSliceColumns;
      Unpack(panel + static_cast<size_t>(first) * kGroupBlockBytes,
             slice_blocks, &slice);
      for (int tile = 0; tile < n_tiles; ++tile) {
        // Tiles of nearly equal size, since small ones are slow.
        const int begin = n_tokens * tile / n_tiles;
        const int end = n_tokens * (tile + 1) / n_tiles;
        kTiles[end - begin](
            slice, n_columns / 4,
            x.q + static_cast<size_t>(token_begin + begin) * x.n + column, x.n,
            sums + begin);
      }
    }
    for (int i = 0; i < n_tokens; ++i) {
      const int t = token_begin + i;
      float* out = y + t * y_stride + row;
      const int n_rows = row_end - row;
      StoreRows(sums[i][0], x.sum[t], x.s[t], w.scale, n_rows, out);
      StoreRows(sums[i][1], x.sum[t], x.s[t], w.scale, n_rows - kHalfPanelRows,
                out + kHalfPanelRows);
    }
  }
}

}  // namespace

void TernaryMatmulBase3(const TernaryView& w, const QuantizedTokens& x,
                        int row_begin, int row_end, float* y, size_t y_stride) {
  if (x.n_tokens <= kTokensInPairs) {
    MatvecPairs(w, x, row_begin, row_end, y, y_stride);
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

}  // namespace tern::avx512vbmi
