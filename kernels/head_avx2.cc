#include <immintrin.h>

#include <cstring>

#include "kernels/avx2.h"
#include "kernels/head_bounds.h"
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

static inline __m256i Load32(const uint8_t* at) {
  return _mm256_load_si256(reinterpret_cast<const __m256i*>(at));
}

// What belongs to two groups' rows, from the lower plane.
static inline __m256i JoinGroups(const uint8_t* low, const uint8_t* high) {
  return _mm256_inserti128_si256(
      _mm256_castsi128_si256(
          _mm_load_si128(reinterpret_cast<const __m128i*>(low))),
      _mm_load_si128(reinterpret_cast<const __m128i*>(high)), 1);
}

// The bytes of columns k .. k + 7 and rows 8 h .. 8 h + 7 of a panel.
struct UpperPlane {
  static __m256i Load(const uint8_t* panel, int /*n_columns*/, int k, int h) {
    return Load32(panel + kHeadPanelRows / 2 * k + 32 * h);
  }
};

struct LowerPlane {
  static __m256i Load(const uint8_t* panel, int n_columns, int k, int h) {
    const uint8_t* const group =
        panel +
        kHeadGroupRows / 2 * (static_cast<size_t>(2 * h) * n_columns + k);
    return JoinGroups(group, group + kHeadGroupRows / 2 * n_columns);
  }
};

// A panel of one plane against kTokens tokens; sums[t][h] has rows 8 h ..
// 8 h + 7. Meanwhile the panel `ahead` comes to the cache.
//
// maddubs wants one unsigned operand, which a whole weight could not be without
// saturating pair sums. Those of four bits are at most 2 * 15 * 127, and four
// of them fit int16.
template <typename Plane, int kTokens>
void PlaneTile(const uint8_t* panel, int n_columns, const int8_t* q,
               const uint8_t* ahead, __m256i (*sums)[2]) {
  const __m256i ones = _mm256_set1_epi16(1);
  const __m256i low_bits = _mm256_set1_epi8(0x0f);
  __m256i acc[kTokens][2];
#pragma GCC unroll 4
  for (int t = 0; t < kTokens; ++t) {
    acc[t][0] = acc[t][1] = _mm256_setzero_si256();
  }
  for (int k = 0; k < n_columns; k += 16) {
    _mm_prefetch(ahead + kHeadPanelRows / 2 * k, _MM_HINT_T0);
    _mm_prefetch(ahead + kHeadPanelRows / 2 * k + 64, _MM_HINT_T0);
#pragma GCC unroll 2
    for (int h = 0; h < 2; ++h) {
      const __m256i b0 = Plane::Load(panel, n_columns, k, h);
      const __m256i b1 = Plane::Load(panel, n_columns, k + 8, h);
      // What a 16-bit shift drags in from the neighbour is masked away.
      const __m256i w0 = _mm256_and_si256(b0, low_bits);
      const __m256i w1 = _mm256_and_si256(_mm256_srli_epi16(b0, 4), low_bits);
      const __m256i w2 = _mm256_and_si256(b1, low_bits);
      const __m256i w3 = _mm256_and_si256(_mm256_srli_epi16(b1, 4), low_bits);
#pragma GCC unroll 4
      for (int t = 0; t < kTokens; ++t) {
        const int8_t* const at = q + static_cast<size_t>(t) * n_columns + k;
        __m256i p = _mm256_maddubs_epi16(w0, BroadcastQuad(at));
        p = _mm256_add_epi16(p,
                             _mm256_maddubs_epi16(w1, BroadcastQuad(at + 4)));
        p = _mm256_add_epi16(p,
                             _mm256_maddubs_epi16(w2, BroadcastQuad(at + 8)));
        p = _mm256_add_epi16(p,
                             _mm256_maddubs_epi16(w3, BroadcastQuad(at + 12)));
        acc[t][h] = _mm256_add_epi32(acc[t][h], _mm256_madd_epi16(p, ones));
      }
    }
  }
#pragma GCC unroll 4
  for (int t = 0; t < kTokens; ++t) {
    sums[t][0] = acc[t][0];
    sums[t][1] = acc[t][1];
  }
}

using PlaneTileFunction = void (*)(const uint8_t*, int, const int8_t*,
                                   const uint8_t*, __m256i (*)[2]);
template <typename Plane>
constexpr PlaneTileFunction kPlaneTiles[kTokensPerTile + 1] = {
    nullptr,
    PlaneTile<Plane, 1>,
    PlaneTile<Plane, 2>,
    PlaneTile<Plane, 3>,
    PlaneTile<Plane, 4>,
};

// A group of the lower plane against kTokens tokens; sums[t] of its four rows.
// Meanwhile the bytes from `ahead` on come to the cache.
template <int kTokens>
void LowerTile(const uint8_t* group, int n_columns, const int8_t* q,
               const uint8_t* ahead, __m128i* sums) {
  const __m256i ones = _mm256_set1_epi16(1);
  const __m256i low_bits = _mm256_set1_epi8(0x0f);
  // Eight columns for the rows in the first half of a register, the next eight
  // for the same rows in the second; of each, the first four and the others.
  const __m256i first_quads =
      _mm256_setr_epi32(0x03020100, 0x03020100, 0x03020100, 0x03020100,
                        0x0b0a0908, 0x0b0a0908, 0x0b0a0908, 0x0b0a0908);
  const __m256i second_quads =
      _mm256_setr_epi32(0x07060504, 0x07060504, 0x07060504, 0x07060504,
                        0x0f0e0d0c, 0x0f0e0d0c, 0x0f0e0d0c, 0x0f0e0d0c);
  __m256i acc[kTokens];
#pragma GCC unroll 4
  for (int t = 0; t < kTokens; ++t) acc[t] = _mm256_setzero_si256();
  for (int k = 0; k < n_columns; k += 16) {
    _mm_prefetch(ahead + 2 * k, _MM_HINT_T0);
    const __m256i bytes = Load32(group + 2 * k);
    const __m256i w0 = _mm256_and_si256(bytes, low_bits);
    const __m256i w1 = _mm256_and_si256(_mm256_srli_epi16(bytes, 4), low_bits);
#pragma GCC unroll 4
    for (int t = 0; t < kTokens; ++t) {
      const __m256i x = _mm256_broadcastsi128_si256(
          _mm_loadu_si128(reinterpret_cast<const __m128i*>(
              q + static_cast<size_t>(t) * n_columns + k)));
      const __m256i p = _mm256_add_epi16(
          _mm256_maddubs_epi16(w0, _mm256_shuffle_epi8(x, first_quads)),
          _mm256_maddubs_epi16(w1, _mm256_shuffle_epi8(x, second_quads)));
      acc[t] = _mm256_add_epi32(acc[t], _mm256_madd_epi16(p, ones));
    }
  }
#pragma GCC unroll 4
  for (int t = 0; t < kTokens; ++t) {
    sums[t] = _mm_add_epi32(_mm256_castsi256_si128(acc[t]),
                            _mm256_extracti128_si256(acc[t], 1));
  }
}

using LowerTileFunction = void (*)(const uint8_t*, int, const int8_t*,
                                   const uint8_t*, __m128i*);
constexpr LowerTileFunction kLowerTiles[kTokensPerTile + 1] = {
    nullptr, LowerTile<1>, LowerTile<2>, LowerTile<3>, LowerTile<4>,
};

// Columns whose whole weights stay in the first cache while all tokens meet
// them.
constexpr int kStripColumns = 512;
constexpr int kTokensPerStrip = 32;

// The whole weights of columns [0, n_columns) of a panel, in blocks of four
// columns: byte 4 r + j of a block is row r.
void JoinPlanes(const uint8_t* upper, const uint8_t* lower, size_t group_bytes,
                int n_columns, int8_t* blocks) {
  const __m256i low_bits = _mm256_set1_epi8(0x0f);
  const __m256i flip = _mm256_set1_epi8(static_cast<char>(0x80));
  for (int k = 0; k < n_columns; k += 8) {
    for (int h = 0; h < 2; ++h) {
      const uint8_t* const group =
          lower + 2 * h * group_bytes + kHeadGroupRows / 2 * k;
      const __m256i high = Load32(upper + kHeadPanelRows / 2 * k + 32 * h);
      const __m256i low = JoinGroups(group, group + group_bytes);
      // What a 16-bit shift drags in from the neighbour is masked away.
      const __m256i w0 = _mm256_or_si256(
          _mm256_andnot_si256(low_bits, _mm256_slli_epi16(high, 4)),
          _mm256_and_si256(low_bits, low));
      const __m256i w1 = _mm256_or_si256(
          _mm256_andnot_si256(low_bits, high),
          _mm256_and_si256(low_bits, _mm256_srli_epi16(low, 4)));
      __m256i* const to =
          reinterpret_cast<__m256i*>(blocks + kHeadPanelRows * k + 32 * h);
      _mm256_store_si256(to, _mm256_xor_si256(w0, flip));
      _mm256_store_si256(to + 2, _mm256_xor_si256(w1, flip));
    }
  }
}

// Adds 16 rows of blocks against kTokens tokens, `stride` bytes apart, to
// sums[t][h]. maddubs wants one unsigned operand: |w|, with the sign of w moved
// to the activation. Pair sums are at most 2 * 127 * 127 = 32258, so they never
// saturate.
template <int kTokens>
void BlocksTile(const int8_t* blocks, int n_columns, const int8_t* q,
                size_t stride, __m256i (*sums)[2]) {
  const __m256i ones = _mm256_set1_epi16(1);
  __m256i acc0[kTokens];
  __m256i acc1[kTokens];
#pragma GCC unroll 4
  for (int t = 0; t < kTokens; ++t) {
    acc0[t] = sums[t][0];
    acc1[t] = sums[t][1];
  }
  for (int k = 0; k < n_columns; k += 4) {
    const __m256i* block =
        reinterpret_cast<const __m256i*>(blocks + kHeadPanelRows * k);
    const __m256i w0 = _mm256_load_si256(block);
    const __m256i w1 = _mm256_load_si256(block + 1);
    const __m256i magnitude0 = _mm256_abs_epi8(w0);
    const __m256i magnitude1 = _mm256_abs_epi8(w1);
#pragma GCC unroll 4
    for (int t = 0; t < kTokens; ++t) {
      const __m256i x = BroadcastQuad(q + t * stride + k);
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

using BlocksTileFunction = void (*)(const int8_t*, int, const int8_t*, size_t,
                                    __m256i (*)[2]);
constexpr BlocksTileFunction kBlocksTiles[kTokensPerTile + 1] = {
    nullptr, BlocksTile<1>, BlocksTile<2>, BlocksTile<3>, BlocksTile<4>,
};

// Sums of a panel for tokens [begin, begin + count), of which there are at most
// kTokensPerStrip. A few tokens meet one plane after the other; for more it
// pays to join the planes first.
void PanelSums(const Int8View& w, const QuantizedTokens& x, int panel,
               int begin, int count, __m256i (*sums)[2]) {
  const size_t panel_bytes =
      static_cast<size_t>(w.n_columns) * (kHeadPanelRows / 2);
  const size_t group_bytes =
      static_cast<size_t>(w.n_columns) * (kHeadGroupRows / 2);
  const uint8_t* const upper = w.upper + panel * panel_bytes;
  const uint8_t* const lower = w.lower + panel * panel_bytes;
  const int8_t* const q = x.q + static_cast<size_t>(begin) * x.n;
  if (count <= kTokensPerTile) {
    __m256i low[kTokensPerTile][2];
    kPlaneTiles<UpperPlane>[count](upper, w.n_columns, q, lower, sums);
    kPlaneTiles<LowerPlane>[count](lower, w.n_columns, q, upper + panel_bytes,
                                   low);
    for (int i = 0; i < count; ++i) {
      // Unsigned, since the product may wrap.
      const uint32_t x_sum = 128u * static_cast<uint32_t>(x.sum[begin + i]);
      const __m256i offset = _mm256_set1_epi32(static_cast<int32_t>(x_sum));
      for (int h = 0; h < 2; ++h) {
        const __m256i whole =
            _mm256_add_epi32(_mm256_slli_epi32(sums[i][h], 4), low[i][h]);
        sums[i][h] = _mm256_sub_epi32(whole, offset);
      }
    }
    return;
  }
  for (int i = 0; i < count; ++i) {
    sums[i][0] = sums[i][1] = _mm256_setzero_si256();
  }
  for (int k = 0; k < w.n_columns; k += kStripColumns) {
    const int n =
        w.n_columns - k < kStripColumns ? w.n_columns - k : kStripColumns;
    alignas(32) int8_t blocks[kHeadPanelRows * kStripColumns];
    JoinPlanes(upper + kHeadPanelRows / 2 * k, lower + kHeadGroupRows / 2 * k,
               group_bytes, n, blocks);
    for (int i = 0; i < count; i += kTokensPerTile) {
      const int n_tokens =
          count - i < kTokensPerTile ? count - i : kTokensPerTile;
      kBlocksTiles[n_tokens](blocks, n, q + static_cast<size_t>(i) * x.n + k,
                             x.n, sums + i);
    }
  }
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
  for (int panel = row_begin / kHeadPanelRows; panel * kHeadPanelRows < row_end;
       ++panel) {
    const int first = panel * kHeadPanelRows;
    const int begin = first > row_begin ? first : row_begin;
    const int end =
        first + kHeadPanelRows < row_end ? first + kHeadPanelRows : row_end;
    for (int t0 = 0; t0 < x.n_tokens; t0 += kTokensPerStrip) {
      const int n_tokens =
          x.n_tokens - t0 < kTokensPerStrip ? x.n_tokens - t0 : kTokensPerStrip;
      __m256i sums[kTokensPerStrip][2];
      PanelSums(w, x, panel, t0, n_tokens, sums);
      for (int i = 0; i < n_tokens; ++i) {
        const __m256 s = _mm256_set1_ps(x.s[t0 + i]);
        float scaled[kHeadPanelRows];
        for (int h = 0; h < 2; ++h) {
          _mm256_storeu_ps(scaled + 8 * h,
                           _mm256_div_ps(_mm256_cvtepi32_ps(sums[i][h]), s));
        }
        for (int row = begin; row < end; ++row) {
          logits[(t0 + i) * logits_stride + row] =
              scaled[row - first] * w.row_scale[row];
        }
      }
    }
  }
}

void HeadInt8Bounds(const Int8View& w, const QuantizedTokens& x,
                    const float* x_norm, int panel_begin, int panel_end,
                    int32_t* upper_sums, float* bounds, size_t stride) {
  const size_t panel_bytes =
      static_cast<size_t>(w.n_columns) * (kHeadPanelRows / 2);
  for (int panel = panel_begin; panel < panel_end; ++panel) {
    for (int t0 = 0; t0 < x.n_tokens; t0 += kTokensPerTile) {
      const int n_tokens =
          x.n_tokens - t0 < kTokensPerTile ? x.n_tokens - t0 : kTokensPerTile;
      __m256i sums[kTokensPerTile][2];
      const uint8_t* const upper = w.upper + panel * panel_bytes;
      kPlaneTiles<UpperPlane>[n_tokens](upper, w.n_columns,
                                        x.q + static_cast<size_t>(t0) * x.n,
                                        upper + panel_bytes, sums);
      for (int i = 0; i < n_tokens; ++i) {
        const int t = t0 + i;
        const size_t at = t * stride + panel * kHeadPanelRows;
        for (int h = 0; h < 2; ++h) {
          _mm256_storeu_si256(
              reinterpret_cast<__m256i*>(upper_sums + at + 8 * h), sums[i][h]);
        }
        StoreHeadBounds(w, x, x_norm[t], t, panel, upper_sums + at,
                        bounds + at / kHeadGroupRows);
      }
    }
  }
}

void HeadInt8Groups(const Int8View& w, const QuantizedTokens& x,
                    const int32_t* groups, int n_groups,
                    const int32_t* upper_sums, float* logits, size_t stride) {
  const size_t group_bytes =
      static_cast<size_t>(w.n_columns) * (kHeadGroupRows / 2);
  for (int i = 0; i < n_groups; ++i) {
    const int next = groups[i + 1 < n_groups ? i + 1 : i];
    for (int t0 = 0; t0 < x.n_tokens; t0 += kTokensPerTile) {
      const int n_tokens =
          x.n_tokens - t0 < kTokensPerTile ? x.n_tokens - t0 : kTokensPerTile;
      __m128i sums[kTokensPerTile];
      kLowerTiles[n_tokens](w.lower + groups[i] * group_bytes, w.n_columns,
                            x.q + static_cast<size_t>(t0) * x.n,
                            w.lower + next * group_bytes, sums);
      for (int j = 0; j < n_tokens; ++j) {
        int32_t lower[kHeadGroupRows];
        _mm_storeu_si128(reinterpret_cast<__m128i*>(lower), sums[j]);
        const size_t at = (t0 + j) * stride + groups[i] * kHeadGroupRows;
        StoreGroupLogits(w, x, t0 + j, groups[i], lower, upper_sums + at,
                         logits + at);
      }
    }
  }
}

}  // namespace tern::avx2
