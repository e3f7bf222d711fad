#include <immintrin.h>

#include <cstring>

#include "kernels/avx2.h"
#include "kernels/head_widen_avx2.h"
#include "kernels/lanes_avx2.h"

namespace tern::avx2 {
namespace {

struct RowF32 {
  using Element = float;
  static __m256 Load8(const char* at) {
    return _mm256_loadu_ps(reinterpret_cast<const float*>(at));
  }
};

struct RowF16 {
  using Element = uint16_t;
  static __m256 Load8(const char* at) {
    return _mm256_cvtph_ps(
        _mm_loadu_si128(reinterpret_cast<const __m128i*>(at)));
  }
};

struct RowBF16 {
  using Element = uint16_t;
  static __m256 Load8(const char* at) {
    const __m256i bits = _mm256_cvtepu16_epi32(
        _mm_loadu_si128(reinterpret_cast<const __m128i*>(at)));
    return _mm256_castsi256_ps(_mm256_slli_epi32(bits, 16));
  }
};

// Rows of blocks.
struct RowQ8_0 {
  static constexpr int kBlockColumns = 32;
  static constexpr size_t kBlockBytes = 34;
  static void Widen(const char* at, float* out) { WidenBlockQ8_0(at, out); }
};

struct RowQ6_K {
  static constexpr int kBlockColumns = 256;
  static constexpr size_t kBlockBytes = 210;
  static void Widen(const char* at, float* out) { WidenBlockQ6_K(at, out); }
};

struct RowQ4_K {
  static constexpr int kBlockColumns = 256;
  static constexpr size_t kBlockBytes = 144;
  static void Widen(const char* at, float* out) { WidenBlockQ4_K(at, out); }
};

// kRows dots at a time: each is a chain of dependent additions.
template <typename Row, int kRows>
void DotRows(const char* rows, const float* x, int n, float* logits) {
  constexpr size_t kBytes = sizeof(typename Row::Element);
  const size_t row_bytes = n * kBytes;
  Lanes16 lanes[kRows];
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
    lanes[r] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
  }
  int k = 0;
  for (; k + 16 <= n; k += 16) {
    const __m256 x0 = _mm256_loadu_ps(x + k);
    const __m256 x1 = _mm256_loadu_ps(x + k + 8);
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      const char* at = rows + r * row_bytes + k * kBytes;
      lanes[r].low = _mm256_fmadd_ps(x0, Row::Load8(at), lanes[r].low);
      lanes[r].high =
          _mm256_fmadd_ps(x1, Row::Load8(at + 8 * kBytes), lanes[r].high);
    }
  }
  const int rest = n - k;
  // Unrolled as every loop over the lanes is: else GCC keeps them in memory.
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
    if (rest > 0) {
      float x_tail[16] = {};
      typename Row::Element w_tail[16] = {};
      std::memcpy(x_tail, x + k, rest * sizeof(float));
      std::memcpy(w_tail, rows + r * row_bytes + k * kBytes, rest * kBytes);
      const char* at = reinterpret_cast<const char*>(w_tail);
      // Missing elements leave their lane alone: adding a zero could change the
      // sign of one.
      lanes[r].low =
          _mm256_blendv_ps(lanes[r].low,
                           _mm256_fmadd_ps(_mm256_loadu_ps(x_tail),
                                           Row::Load8(at), lanes[r].low),
                           _mm256_castsi256_ps(FirstLanes(rest)));
      lanes[r].high = _mm256_blendv_ps(
          lanes[r].high,
          _mm256_fmadd_ps(_mm256_loadu_ps(x_tail + 8),
                          Row::Load8(at + 8 * kBytes), lanes[r].high),
          _mm256_castsi256_ps(FirstLanes(rest - 8)));
    }
    logits[r] = Total(lanes[r]);
  }
}

// The same where a block at a time is widened first. Blocks are whole multiples
// of the lanes, so that nothing is left over.
template <typename Row, int kRows>
void DotBlockRows(const char* rows, const float* x, int n, float* logits) {
  const size_t row_bytes = n / Row::kBlockColumns * Row::kBlockBytes;
  Lanes16 lanes[kRows];
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
    lanes[r] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
  }
  for (int begin = 0; begin < n; begin += Row::kBlockColumns) {
    alignas(32) float widened[kRows][Row::kBlockColumns];
    for (int r = 0; r < kRows; ++r)
      Row::Widen(rows + r * row_bytes, widened[r]);
    rows += Row::kBlockBytes;
    for (int k = 0; k < Row::kBlockColumns; k += 16) {
      const __m256 x0 = _mm256_loadu_ps(x + begin + k);
      const __m256 x1 = _mm256_loadu_ps(x + begin + k + 8);
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) {
        const float* w = widened[r] + k;
        lanes[r].low = _mm256_fmadd_ps(x0, _mm256_loadu_ps(w), lanes[r].low);
        lanes[r].high =
            _mm256_fmadd_ps(x1, _mm256_loadu_ps(w + 8), lanes[r].high);
      }
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) logits[r] = Total(lanes[r]);
}

using DotFunction = void (*)(const char*, const float*, int, float*);

void HeadRows(const DenseView& w, const float* x, int row_begin, int row_end,
              float* logits, DotFunction dot4, DotFunction dot1) {
  const size_t row_bytes = DenseRowBytes(w.type, w.n_columns);
  const char* data = static_cast<const char*>(w.data);
  int row = row_begin;
  for (; row + 4 <= row_end; row += 4) {
    dot4(data + row * row_bytes, x, w.n_columns, logits + row);
  }
  for (; row < row_end; ++row) {
    dot1(data + row * row_bytes, x, w.n_columns, logits + row);
  }
}

template <typename Row>
void HeadPlain(const DenseView& w, const float* x, int row_begin, int row_end,
               float* logits) {
  HeadRows(w, x, row_begin, row_end, logits, DotRows<Row, 4>, DotRows<Row, 1>);
}

template <typename Row>
void HeadBlocks(const DenseView& w, const float* x, int row_begin, int row_end,
                float* logits) {
  HeadRows(w, x, row_begin, row_end, logits, DotBlockRows<Row, 4>,
           DotBlockRows<Row, 1>);
}

constexpr int kTokensPerTile = 4;

// 16 rows of a panel against kTokens tokens. maddubs wants one unsigned
// operand: |w|, with the sign of w moved to the activation. Pair sums are at
// most 2 * 127 * 127 = 32258, so they never saturate.
template <int kTokens>
void Int8Tile(const int8_t* panel, int n_columns, const int8_t* q,
              __m256i (*sums)[2]) {
  const __m256i ones = _mm256_set1_epi16(1);
  __m256i acc0[kTokens];
  __m256i acc1[kTokens];
#pragma GCC unroll 4
  for (int t = 0; t < kTokens; ++t) acc0[t] = acc1[t] = _mm256_setzero_si256();
  for (int k = 0; k < n_columns; k += 4) {
    const __m256i* block =
        reinterpret_cast<const __m256i*>(panel + kHeadPanelRows * k);
    const __m256i w0 = _mm256_load_si256(block);
    const __m256i w1 = _mm256_load_si256(block + 1);
    const __m256i magnitude0 = _mm256_abs_epi8(w0);
    const __m256i magnitude1 = _mm256_abs_epi8(w1);
#pragma GCC unroll 4
    for (int t = 0; t < kTokens; ++t) {
      const __m256i x =
          BroadcastQuad(q + static_cast<size_t>(t) * n_columns + k);
      const __m256i p0 =
          _mm256_maddubs_epi16(magnitude0, _mm256_sign_epi8(x, w0));
      const __m256i p1 =
          _mm256_maddubs_epi16(magnitude1, _mm256_sign_epi8(x, w1));
      acc0[t] = _mm256_add_epi32(acc0[t], _mm256_madd_epi16(p0, ones));
      acc1[t] = _mm256_add_epi32(acc1[t], _mm256_madd_epi16(p1, ones));
    }
  }
#pragma GCC unroll 4
  for (int t = 0; t < kTokens; ++t) {
    sums[t][0] = acc0[t];
    sums[t][1] = acc1[t];
  }
}

using TileFunction = void (*)(const int8_t*, int, const int8_t*,
                              __m256i (*)[2]);
constexpr TileFunction kTiles[kTokensPerTile + 1] = {
    nullptr, Int8Tile<1>, Int8Tile<2>, Int8Tile<3>, Int8Tile<4>,
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
  const size_t panel_bytes = static_cast<size_t>(w.n_columns) * kHeadPanelRows;
  for (int panel_index = row_begin / kHeadPanelRows;
       panel_index * kHeadPanelRows < row_end; ++panel_index) {
    const int8_t* panel = w.packed + panel_index * panel_bytes;
    const int first = panel_index * kHeadPanelRows;
    const int begin = first > row_begin ? first : row_begin;
    const int end =
        first + kHeadPanelRows < row_end ? first + kHeadPanelRows : row_end;
    for (int t0 = 0; t0 < x.n_tokens; t0 += kTokensPerTile) {
      const int n_tokens =
          x.n_tokens - t0 < kTokensPerTile ? x.n_tokens - t0 : kTokensPerTile;
      __m256i sums[kTokensPerTile][2];
      kTiles[n_tokens](panel, w.n_columns, x.q + static_cast<size_t>(t0) * x.n,
                       sums);
      for (int t = 0; t < n_tokens; ++t) {
        const __m256 s = _mm256_set1_ps(x.s[t0 + t]);
        float scaled[kHeadPanelRows];
        _mm256_storeu_ps(scaled,
                         _mm256_div_ps(_mm256_cvtepi32_ps(sums[t][0]), s));
        _mm256_storeu_ps(scaled + 8,
                         _mm256_div_ps(_mm256_cvtepi32_ps(sums[t][1]), s));
        for (int row = begin; row < end; ++row) {
          logits[(t0 + t) * logits_stride + row] =
              scaled[row - first] * w.row_scale[row];
        }
      }
    }
  }
}

}  // namespace tern::avx2
