#include <immintrin.h>

#include "kernels/avx512.h"
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

// How far ahead a tile that stands alone asks for its own panels: two of them
// side by side are more than the hardware foresees.
constexpr int kAheadBytes = 5120;

// kPanels panels of 16 rows, one behind the other, against kTokens tokens;
// sums[t][panel]. vpdpbusd wants one unsigned operand: w + 128, so that 128
// times the sum of q is to be subtracted. Partial sums may wrap modulo 2^32;
// the difference fits.
//
// Two panels at a time share the loads of the activations, of which one panel
// would need one for each multiplication. Meanwhile a panel's bytes from
// `ahead` on come to the second cache; without it, for a tile that stands
// alone, the panels' own next bytes.
template <int kTokens, int kPanels>
void Int8Tile(const int8_t* panel, int n_columns, const int8_t* q,
              const int8_t* ahead, __m512i (*sums)[2]) {
  // Few tokens need several chains each to hide the latency of vpdpbusd.
  constexpr int kChains = kTokens == 1 ? 4 : kTokens <= 3 ? 2 : 1;
  const size_t panel_bytes = static_cast<size_t>(n_columns) * kHeadPanelRows;
  const __m512i flip = _mm512_set1_epi8(static_cast<char>(0x80));
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
    const int8_t* const blocks = panel + kHeadPanelRows * k;
#pragma GCC unroll 4
    for (int b = 0; b < 4; ++b) {
      const size_t at = kHeadPanelRows * (k + 4 * b);
      if (ahead != nullptr) {
        _mm_prefetch(ahead + at, _MM_HINT_T1);
      } else {
#pragma GCC unroll 2
        for (int p = 0; p < kPanels; ++p) {
          _mm_prefetch(panel + p * panel_bytes + at + kAheadBytes, _MM_HINT_T0);
        }
      }
      __m512i w[kPanels];
#pragma GCC unroll 2
      for (int p = 0; p < kPanels; ++p) {
        const int8_t* const block =
            blocks + p * panel_bytes + 4 * kHeadPanelRows * b;
        w[p] = _mm512_xor_si512(_mm512_load_si512(block), flip);
      }
#pragma GCC unroll 12
      for (int t = 0; t < kTokens; ++t) {
        const int8_t* const at =
            q + static_cast<size_t>(t) * n_columns + k + 4 * b;
        const __m512i quad = BroadcastQuad(at);
#pragma GCC unroll 2
        for (int p = 0; p < kPanels; ++p) {
          __m512i& chain = acc[t][p][b % kChains];
          chain = _mm512_dpbusd_epi32(chain, w[p], quad);
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

using TileFunction = void (*)(const int8_t*, int, const int8_t*, const int8_t*,
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
  const size_t panel_bytes = static_cast<size_t>(w.n_columns) * kHeadPanelRows;
  const int n_tiles = TileCount(x.n_tokens);
  const int last = HeadPanelCount(row_end);
  for (int panel = row_begin / kHeadPanelRows; panel < last;) {
    // One token alone reads memory fastest in one sequence.
    const int n_panels = x.n_tokens > 1 && panel + 1 < last ? 2 : 1;
    const TileFunction* const tiles = n_panels == 2 ? kTiles<2> : kTiles<1>;
    for (int tile = 0; tile < n_tiles; ++tile) {
      const int begin = x.n_tokens * tile / n_tiles;
      const int end = x.n_tokens * (tile + 1) / n_tiles;
      const int8_t* const packed = w.packed + panel * panel_bytes;
      // Of several tiles, the last asks for the second of the next two panels,
      // the others for the first. Nothing is read beyond the last panel.
      const int8_t* const ahead =
          n_tiles == 1
              ? nullptr
              : packed + (n_panels + (tile == n_tiles - 1)) * panel_bytes;
      __m512i sums[kTokensPerTile][2];
      tiles[end - begin](packed, w.n_columns,
                         x.q + static_cast<size_t>(begin) * x.n, ahead, sums);
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

}  // namespace tern::avx512
