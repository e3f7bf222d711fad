#include <immintrin.h>

#include "kernels/avx512.h"
#include "kernels/head_bounds.h"
#include "kernels/head_widen_avx2.h"
#include "kernels/lanes_avx512.h"

namespace tern::avx512 {
namespace {

struct RowF32 {
  static constexpr size_t kBytes = 4;
  static __m512 Load16(const char* at) { return _mm512_loadu_ps(at); }
  static __m512 LoadSome(const char* at, __mmask16 mask) {
    return _mm512_maskz_loadu_ps(mask, at);
  }
};

struct RowF16 {
  static constexpr size_t kBytes = 2;
  static __m512 Load16(const char* at) {
    return _mm512_cvtph_ps(
        _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at)));
  }
  static __m512 LoadSome(const char* at, __mmask16 mask) {
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, at));
  }
};

struct RowBF16 {
  static constexpr size_t kBytes = 2;
  static __m512 Widen(__m256i bits) {
    return _mm512_castsi512_ps(
        _mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
  }
  static __m512 Load16(const char* at) {
    return Widen(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(at)));
  }
  static __m512 LoadSome(const char* at, __mmask16 mask) {
    return Widen(_mm256_maskz_loadu_epi16(mask, at));
  }
};

// Rows of blocks.
struct RowQ8_0 {
  static constexpr int kBlockColumns = 32;
  static constexpr size_t kBlockBytes = 34;
  static void Widen(const char* at, float* out) {
    avx2::WidenBlockQ8_0(at, out);
  }
};

struct RowQ6_K {
  static constexpr int kBlockColumns = 256;
  static constexpr size_t kBlockBytes = 210;
  static void Widen(const char* at, float* out) {
    avx2::WidenBlockQ6_K(at, out);
  }
};

struct RowQ4_K {
  static constexpr int kBlockColumns = 256;
  static constexpr size_t kBlockBytes = 144;
  static void Widen(const char* at, float* out) {
    avx2::WidenBlockQ4_K(at, out);
  }
};

// kRows dots at a time: each is a chain of dependent additions. Eight rows read
// memory twice as fast as two.
template <typename Row, int kRows>
void DotRows(const char* rows, const float* x, int n, float* logits) {
  const size_t row_bytes = n * Row::kBytes;
  __m512 lanes[kRows];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) lanes[r] = _mm512_setzero_ps();
  int k = 0;
  for (; k + 16 <= n; k += 16) {
    const __m512 vx = _mm512_loadu_ps(x + k);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      lanes[r] = _mm512_fmadd_ps(
          vx, Row::Load16(rows + r * row_bytes + k * Row::kBytes), lanes[r]);
    }
  }
  if (k < n) {
    // Missing elements leave their lane alone: adding a zero could change the
    // sign of one.
    const __mmask16 mask = FirstLanes(n - k);
    const __m512 vx = _mm512_maskz_loadu_ps(mask, x + k);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      lanes[r] = _mm512_mask3_fmadd_ps(
          vx, Row::LoadSome(rows + r * row_bytes + k * Row::kBytes, mask),
          lanes[r], mask);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) logits[r] = Total(lanes[r]);
}

// The same where a block at a time is widened first. Blocks are whole multiples
// of the lanes, so that nothing is left over.
template <typename Row, int kRows>
void DotBlockRows(const char* rows, const float* x, int n, float* logits) {
  const size_t row_bytes = n / Row::kBlockColumns * Row::kBlockBytes;
  __m512 lanes[kRows];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) lanes[r] = _mm512_setzero_ps();
  for (int begin = 0; begin < n; begin += Row::kBlockColumns) {
    alignas(64) float widened[kRows][Row::kBlockColumns];
    for (int r = 0; r < kRows; ++r)
      Row::Widen(rows + r * row_bytes, widened[r]);
    rows += Row::kBlockBytes;
    for (int k = 0; k < Row::kBlockColumns; k += 16) {
      const __m512 vx = _mm512_loadu_ps(x + begin + k);
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
        lanes[r] =
            _mm512_fmadd_ps(vx, _mm512_load_ps(widened[r] + k), lanes[r]);
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) logits[r] = Total(lanes[r]);
}

using DotFunction = void (*)(const char*, const float*, int, float*);

void HeadRows(const DenseView& w, const float* x, int row_begin, int row_end,
              float* logits, DotFunction dot8, DotFunction dot1) {
  const size_t row_bytes = DenseRowBytes(w.type, w.n_columns);
  const char* data = static_cast<const char*>(w.data);
  int row = row_begin;
  for (; row + 8 <= row_end; row += 8) {
    dot8(data + row * row_bytes, x, w.n_columns, logits + row);
  }
  for (; row < row_end; ++row) {
    dot1(data + row * row_bytes, x, w.n_columns, logits + row);
  }
}

template <typename Row>
void HeadPlain(const DenseView& w, const float* x, int row_begin, int row_end,
               float* logits) {
  HeadRows(w, x, row_begin, row_end, logits, DotRows<Row, 8>, DotRows<Row, 1>);
}

template <typename Row>
void HeadBlocks(const DenseView& w, const float* x, int row_begin, int row_end,
                float* logits) {
  HeadRows(w, x, row_begin, row_end, logits, DotBlockRows<Row, 8>,
           DotBlockRows<Row, 1>);
}

// How far ahead a tile that stands alone asks for its own panels, in bytes of
// a plane.
constexpr int kAheadBytes = 2560;

// A panel of rows in both planes.
struct Panel {
  const uint8_t* upper;
  const uint8_t* lower;
};

static inline __m256i Load32(const uint8_t* at) {
  return _mm256_load_si256(reinterpret_cast<const __m256i*>(at));
}

static inline __m512i Join(__m256i low, __m256i high) {
  return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
}

// kPanels panels of 16 rows, one behind the other, against kTokens tokens;
// sums[t][panel] of (q + 128) times the activations, so that 128 times their
// sum is to be subtracted. Partial sums may wrap modulo 2^32; the difference
// fits.
//
// Two panels at a time share the loads of the activations, of which one panel
// would need one for each multiplication. Meanwhile a panel's bytes from
// `ahead` on come to the second cache; without it, for a tile that stands
// alone, the panels' own next bytes.
template <int kTokens, int kPanels>
void Int8Tile(const Panel& panel, int n_columns, const int8_t* q,
              const Panel* ahead, __m512i (*sums)[2]) {
  // Few tokens need several chains each to hide the latency of vpdpbusd.
  constexpr int kChains = kTokens == 1 ? 4 : kTokens <= 3 ? 2 : 1;
  const size_t panel_bytes =
      static_cast<size_t>(n_columns) * (kHeadPanelRows / 2);
  const size_t group_bytes =
      static_cast<size_t>(n_columns) * (kHeadGroupRows / 2);
  const __m512i high_bits = _mm512_set1_epi8(static_cast<char>(0xf0));
  __m512i acc[kTokens][kPanels][kChains];
#pragma GCC unroll 12
  for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 2
    for (int p = 0; p < kPanels; ++p) {
#pragma GCC unroll 4
      for (int c = 0; c < kChains; ++c) acc[t][p][c] = _mm512_setzero_si512();
    }
  }
  for (int k = 0; k < n_columns; k += 16) {
    // Two blocks of the upper plane, and what belongs to them of each group.
    const size_t at = static_cast<size_t>(k) * (kHeadPanelRows / 2);
    __m512i groups01[kPanels];
    __m512i groups23[kPanels];
#pragma GCC unroll 2
    for (int p = 0; p < kPanels; ++p) {
      const uint8_t* const lower =
          panel.lower + p * panel_bytes + k * (kHeadGroupRows / 2);
      groups01[p] = Join(Load32(lower), Load32(lower + group_bytes));
      groups23[p] = Join(Load32(lower + 2 * group_bytes),
                         Load32(lower + 3 * group_bytes));
    }
#pragma GCC unroll 2
    for (int b = 0; b < 2; ++b) {
      if (ahead != nullptr) {
        _mm_prefetch(ahead->upper + at + 64 * b, _MM_HINT_T1);
        _mm_prefetch(ahead->lower + at + 64 * b, _MM_HINT_T1);
      } else {
#pragma GCC unroll 2
        for (int p = 0; p < kPanels; ++p) {
          const size_t next = p * panel_bytes + at + 64 * b;
          _mm_prefetch(panel.upper + next + kAheadBytes, _MM_HINT_T0);
          _mm_prefetch(panel.lower + next + kPanels * panel_bytes, _MM_HINT_T0);
        }
      }
#pragma GCC unroll 2
      for (int half = 0; half < 2; ++half) {
        __m512i w[kPanels];
#pragma GCC unroll 2
        for (int p = 0; p < kPanels; ++p) {
          const __m512i high =
              _mm512_load_si512(panel.upper + p * panel_bytes + at + 64 * b);
          const __m512i low =
              b == 0 ? _mm512_shuffle_i32x4(groups01[p], groups23[p], 0x88)
                     : _mm512_shuffle_i32x4(groups01[p], groups23[p], 0xdd);
          // Bits of `high_bits` from the one, the others from the other.
          w[p] = half == 0
                     ? _mm512_ternarylogic_epi64(
                           high_bits, _mm512_slli_epi16(high, 4), low, 0xca)
                     : _mm512_ternarylogic_epi64(
                           high_bits, high, _mm512_srli_epi16(low, 4), 0xca);
        }
#pragma GCC unroll 12
        for (int t = 0; t < kTokens; ++t) {
          const int block = 2 * b + half;
          const __m512i quad = BroadcastQuad(
              q + static_cast<size_t>(t) * n_columns + k + 4 * block);
#pragma GCC unroll 2
          for (int p = 0; p < kPanels; ++p) {
            __m512i& chain = acc[t][p][block % kChains];
            chain = _mm512_dpbusd_epi32(chain, w[p], quad);
          }
        }
      }
    }
  }
#pragma GCC unroll 12
  for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 2
    for (int p = 0; p < kPanels; ++p) {
      sums[t][p] = acc[t][p][0];
#pragma GCC unroll 4
      for (int c = 1; c < kChains; ++c) {
        sums[t][p] = _mm512_add_epi32(sums[t][p], acc[t][p][c]);
      }
    }
  }
}

using TileFunction = void (*)(const Panel&, int, const int8_t*, const Panel*,
                              __m512i (*)[2]);
template <int kPanels>
constexpr TileFunction kTiles[kTokensPerTile + 1] = {
    nullptr,
    Int8Tile<1, kPanels>,
    Int8Tile<2, kPanels>,
    Int8Tile<3, kPanels>,
    Int8Tile<4, kPanels>,
    Int8Tile<5, kPanels>,
    Int8Tile<6, kPanels>,
    Int8Tile<7, kPanels>,
    Int8Tile<8, kPanels>,
    Int8Tile<9, kPanels>,
    Int8Tile<10, kPanels>,
    Int8Tile<11, kPanels>,
    Int8Tile<12, kPanels>,
};

// The logits of a panel's rows of [row_begin, row_end) for one token.
void StoreLogits(const Int8View& w, const QuantizedTokens& x, int t,
                 __m512i sums, int panel_index, int row_begin, int row_end,
                 float* logits) {
  const int first = panel_index * kHeadPanelRows;
  const __mmask16 mask =
      FirstLanes(row_end - first) & ~FirstLanes(row_begin - first);
  // Unsigned, since the product may wrap.
  const uint32_t offset = 128u * static_cast<uint32_t>(x.sum[t]);
  const __m512i exact =
      _mm512_sub_epi32(sums, _mm512_set1_epi32(static_cast<int32_t>(offset)));
  const __m512 scaled =
      _mm512_div_ps(_mm512_cvtepi32_ps(exact), _mm512_set1_ps(x.s[t]));
  const __m512 d = _mm512_maskz_loadu_ps(mask, w.row_scale + first);
  _mm512_mask_storeu_ps(logits + first, mask, _mm512_mul_ps(scaled, d));
}

constexpr int kBoundTokensPerTile = 4;

// A panel of the upper plane against kTokens tokens.
template <int kTokens>
void UpperTile(const uint8_t* panel, int n_columns, const int8_t* q,
               __m512i* sums) {
  constexpr int kChains = kTokens == 1 ? 2 : 1;
  const __m512i low_bits = _mm512_set1_epi8(0x0f);
  const __m512i high_bits = _mm512_set1_epi8(static_cast<char>(0xf0));
  // The high four bits stay where they are: sums of them are 16 times as large.
  __m512i low[kTokens][kChains];
  __m512i high[kTokens][kChains];
#pragma GCC unroll 4
  for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 2
    for (int c = 0; c < kChains; ++c) {
      low[t][c] = high[t][c] = _mm512_setzero_si512();
    }
  }
  for (int k = 0; k < n_columns; k += 16) {
#pragma GCC unroll 2
    for (int b = 0; b < 2; ++b) {
      const uint8_t* const block = panel + 8 * k + 64 * b;
      _mm_prefetch(block + 2 * kAheadBytes, _MM_HINT_T0);
      const __m512i bytes = _mm512_load_si512(block);
      const __m512i w0 = _mm512_and_si512(bytes, low_bits);
      const __m512i w1 = _mm512_and_si512(bytes, high_bits);
#pragma GCC unroll 4
      for (int t = 0; t < kTokens; ++t) {
        const int8_t* const at =
            q + static_cast<size_t>(t) * n_columns + k + 8 * b;
        __m512i& chain0 = low[t][b % kChains];
        __m512i& chain1 = high[t][b % kChains];
        chain0 = _mm512_dpbusd_epi32(chain0, w0, BroadcastQuad(at));
        chain1 = _mm512_dpbusd_epi32(chain1, w1, BroadcastQuad(at + 4));
      }
    }
  }
#pragma GCC unroll 4
  for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 2
    for (int c = 1; c < kChains; ++c) {
      low[t][0] = _mm512_add_epi32(low[t][0], low[t][c]);
      high[t][0] = _mm512_add_epi32(high[t][0], high[t][c]);
    }
    sums[t] = _mm512_add_epi32(low[t][0], _mm512_srai_epi32(high[t][0], 4));
  }
}

using UpperTileFunction = void (*)(const uint8_t*, int, const int8_t*,
                                   __m512i*);
constexpr UpperTileFunction kUpperTiles[kBoundTokensPerTile + 1] = {
    nullptr, UpperTile<1>, UpperTile<2>, UpperTile<3>, UpperTile<4>,
};

}  // namespace

void HeadStored(const DenseView& w, const float* x, int row_begin, int row_end,
                float* logits) {
  switch (w.type) {
    case DenseType::kF32:
      return HeadPlain<RowF32>(w, x, row_begin, row_end, logits);
    case DenseType::kF16:
      return HeadPlain<RowF16>(w, x, row_begin, row_end, logits);
    case DenseType::kBF16:
      return HeadPlain<RowBF16>(w, x, row_begin, row_end, logits);
    case DenseType::kQ8_0:
      return HeadBlocks<RowQ8_0>(w, x, row_begin, row_end, logits);
    case DenseType::kQ6_K:
      return HeadBlocks<RowQ6_K>(w, x, row_begin, row_end, logits);
    case DenseType::kQ4_K:
      return HeadBlocks<RowQ4_K>(w, x, row_begin, row_end, logits);
  }
}

void HeadInt8(const Int8View& w, const QuantizedTokens& x, int row_begin,
              int row_end, float* logits, size_t logits_stride) {
  const size_t panel_bytes =
      static_cast<size_t>(w.n_columns) * (kHeadPanelRows / 2);
  const int n_tiles = TileCount(x.n_tokens);
  const int last = HeadPanelCount(row_end);
  for (int panel = row_begin / kHeadPanelRows; panel < last;) {
    // One token alone reads memory fastest in one sequence.
    const int n_panels = x.n_tokens > 1 && panel + 1 < last ? 2 : 1;
    const TileFunction* const tiles = n_panels == 2 ? kTiles<2> : kTiles<1>;
    for (int tile = 0; tile < n_tiles; ++tile) {
      const int begin = x.n_tokens * tile / n_tiles;
      const int end = x.n_tokens * (tile + 1) / n_tiles;
      const size_t at = panel * panel_bytes;
      // Of several tiles, the last asks for the second of the next two panels,
      // the others for the first. Nothing is read beyond the last panel.
      const size_t next = at + (n_panels + (tile == n_tiles - 1)) * panel_bytes;
      const Panel ahead = {w.upper + next, w.lower + next};
      __m512i sums[kTokensPerTile][2];
      tiles[end - begin]({w.upper + at, w.lower + at}, w.n_columns,
                         x.q + static_cast<size_t>(begin) * x.n,
                         n_tiles == 1 ? nullptr : &ahead, sums);
      for (int t = begin; t < end; ++t) {
        for (int p = 0; p < n_panels; ++p) {
          StoreLogits(w, x, t, sums[t - begin][p], panel + p, row_begin,
                      row_end, logits + t * logits_stride);
        }
      }
    }
    panel += n_panels;
  }
}

void HeadInt8Bounds(const Int8View& w, const QuantizedTokens& x,
                    const float* x_norm, int panel_begin, int panel_end,
                    int32_t* upper_sums, float* bounds, size_t stride) {
  for (int panel = panel_begin; panel < panel_end; ++panel) {
    const uint8_t* const upper =
        w.upper + static_cast<size_t>(panel) * w.n_columns * 8;
    for (int t0 = 0; t0 < x.n_tokens; t0 += kBoundTokensPerTile) {
      const int n_tokens = x.n_tokens - t0 < kBoundTokensPerTile
                               ? x.n_tokens - t0
                               : kBoundTokensPerTile;
      __m512i sums[kBoundTokensPerTile];
      kUpperTiles[n_tokens](upper, w.n_columns,
                            x.q + static_cast<size_t>(t0) * x.n, sums);
      for (int i = 0; i < n_tokens; ++i) {
        const size_t at = (t0 + i) * stride + panel * kHeadPanelRows;
        _mm512_storeu_si512(upper_sums + at, sums[i]);
        StoreHeadBounds(w, x, x_norm[t0 + i], t0 + i, panel, upper_sums + at,
                        bounds + at / kHeadGroupRows);
      }
    }
  }
}

}  // namespace tern::avx512
