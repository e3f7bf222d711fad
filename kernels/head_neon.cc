#include <arm_neon.h>

#include <cstring>

#include "kernels/head_bounds.h"
#include "kernels/head_widen_neon.h"
#include "kernels/lanes_neon.h"
#include "kernels/neon.h"

namespace tern::neon {
namespace {

struct RowF32 {
  using Element = float;
  static float32x4_t Load4(const uint8_t* at) {
    return vreinterpretq_f32_u8(vld1q_u8(at));
  }
};

struct RowF16 {
  using Element = uint16_t;
  static float32x4_t Load4(const uint8_t* at) { return HalvesAt(at); }
};

struct RowBF16 {
  using Element = uint16_t;
  static float32x4_t Load4(const uint8_t* at) { return BrainFloatsAt(at); }
};

// Rows of blocks.
struct RowQ8_0 {
  static constexpr int kBlockColumns = 32;
  static constexpr size_t kBlockBytes = 34;
  static void Widen(const uint8_t* at, float* out) { WidenBlockQ8_0(at, out); }
};

struct RowQ6_K {
  static constexpr int kBlockColumns = 256;
  static constexpr size_t kBlockBytes = 210;
  static void Widen(const uint8_t* at, float* out) { WidenBlockQ6_K(at, out); }
};

struct RowQ4_K {
  static constexpr int kBlockColumns = 256;
  static constexpr size_t kBlockBytes = 144;
  static void Widen(const uint8_t* at, float* out) { WidenBlockQ4_K(at, out); }
};

// kRows dots at a time, which share the loads of x: each is four chains of
// dependent additions.
template <typename Row, int kRows>
void DotRows(const uint8_t* rows, const float* x, int n, float* logits) {
  constexpr size_t kBytes = sizeof(typename Row::Element);
  const size_t row_bytes = n * kBytes;
  float32x4_t lanes[kRows][4];
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) lanes[r][i] = vdupq_n_f32(0.0f);
  }
  int k = 0;
  for (; k + 16 <= n; k += 16) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      const float32x4_t xi = vld1q_f32(x + k + 4 * i);
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) {
        const uint8_t* at = rows + r * row_bytes + (k + 4 * i) * kBytes;
        lanes[r][i] = vfmaq_f32(lanes[r][i], xi, Row::Load4(at));
      }
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
      const uint8_t* at = reinterpret_cast<const uint8_t*>(w_tail);
      // Missing elements leave their lane alone: adding a zero could change the
      // sign of one.
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
        const float32x4_t added =
            vfmaq_f32(lanes[r][i], vld1q_f32(x_tail + 4 * i),
                      Row::Load4(at + 4 * i * kBytes));
        lanes[r][i] = vbslq_f32(FirstLanes(rest - 4 * i), added, lanes[r][i]);
      }
    }
    logits[r] = Total(lanes[r]);
  }
}

// The same where a block at a time is widened first. Blocks are whole multiples
// of the lanes, so that nothing is left over.
template <typename Row, int kRows>
void DotBlockRows(const uint8_t* rows, const float* x, int n, float* logits) {
  const size_t row_bytes = n / Row::kBlockColumns * Row::kBlockBytes;
  float32x4_t lanes[kRows][4];
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) lanes[r][i] = vdupq_n_f32(0.0f);
  }
  for (int begin = 0; begin < n; begin += Row::kBlockColumns) {
    float widened[kRows][Row::kBlockColumns];
    for (int r = 0; r < kRows; ++r) {
      Row::Widen(rows + r * row_bytes, widened[r]);
    }
    rows += Row::kBlockBytes;
    for (int k = 0; k < Row::kBlockColumns; k += 16) {
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
        const float32x4_t xi = vld1q_f32(x + begin + k + 4 * i);
#pragma GCC unroll 4
        for (int r = 0; r < kRows; ++r) {
          lanes[r][i] =
              vfmaq_f32(lanes[r][i], xi, vld1q_f32(widened[r] + k + 4 * i));
        }
      }
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) logits[r] = Total(lanes[r]);
}

using DotFunction = void (*)(const uint8_t*, const float*, int, float*);

void HeadRows(const DenseView& w, const float* x, int row_begin, int row_end,
              float* logits, DotFunction dot4, DotFunction dot1) {
  const size_t row_bytes = DenseRowBytes(w.type, w.n_columns);
  const uint8_t* data = static_cast<const uint8_t*>(w.data);
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

// 16 rows of a panel against kTokens tokens. Few tokens have few sums: theirs
// are kept in kSets parts, so that one addition need not wait for the last.
template <int kTokens>
void Int8Tile(const uint8_t* upper, const uint8_t* lower, int n_columns,
              const int8_t* q, int32x4_t (*sums)[4]) {
  constexpr int kSets = kTokens == 1 ? 4 : kTokens == 2 ? 2 : 1;
  const size_t group_bytes =
      static_cast<size_t>(n_columns) * (kHeadGroupRows / 2);
  const uint8x16_t flip = vdupq_n_u8(0x80);
  int32x4_t acc[kSets][kTokens][4];
#pragma GCC unroll 4
  for (int set = 0; set < kSets; ++set) {
#pragma GCC unroll 4
    for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 4
      for (int h = 0; h < 4; ++h) acc[set][t][h] = vdupq_n_s32(0);
    }
  }
  for (int k = 0; k < n_columns; k += 16) {
    const uint8_t* const blocks = upper + kHeadPanelRows / 2 * k;
    int8x16_t x[kTokens];
#pragma GCC unroll 4
    for (int t = 0; t < kTokens; ++t) {
      x[t] = vld1q_s8(q + static_cast<size_t>(t) * n_columns + k);
    }
#pragma GCC unroll 4
    for (int h = 0; h < 4; ++h) {
      // Four rows and sixteen columns: four quads, which meet one lane of x
      // each. A shift that inserts joins the halves of eight of q + 128.
      const uint8_t* const group =
          lower + h * group_bytes + kHeadGroupRows / 2 * k;
      const uint8x16_t high0 = vld1q_u8(blocks + 16 * h);
      const uint8x16_t high1 = vld1q_u8(blocks + 16 * h + 64);
      const uint8x16_t low0 = vld1q_u8(group);
      const uint8x16_t low1 = vld1q_u8(group + 16);
      const int8x16_t w0 =
          vreinterpretq_s8_u8(veorq_u8(vsliq_n_u8(low0, high0, 4), flip));
      const int8x16_t w1 =
          vreinterpretq_s8_u8(veorq_u8(vsriq_n_u8(high0, low0, 4), flip));
      const int8x16_t w2 =
          vreinterpretq_s8_u8(veorq_u8(vsliq_n_u8(low1, high1, 4), flip));
      const int8x16_t w3 =
          vreinterpretq_s8_u8(veorq_u8(vsriq_n_u8(high1, low1, 4), flip));
#pragma GCC unroll 4
      for (int t = 0; t < kTokens; ++t) {
        int32x4_t* a = &acc[0][t][h];
        int32x4_t* b = &acc[1 % kSets][t][h];
        int32x4_t* c = &acc[2 % kSets][t][h];
        int32x4_t* d = &acc[3 % kSets][t][h];
        *a = vdotq_laneq_s32(*a, w0, x[t], 0);
        *b = vdotq_laneq_s32(*b, w1, x[t], 1);
        *c = vdotq_laneq_s32(*c, w2, x[t], 2);
        *d = vdotq_laneq_s32(*d, w3, x[t], 3);
      }
    }
  }
#pragma GCC unroll 4
  for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 4
    for (int h = 0; h < 4; ++h) {
      int32x4_t sum = acc[0][t][h];
#pragma GCC unroll 4
      for (int set = 1; set < kSets; ++set) {
        sum = vaddq_s32(sum, acc[set][t][h]);
      }
      sums[t][h] = sum;
    }
  }
}

using TileFunction = void (*)(const uint8_t*, const uint8_t*, int,
                              const int8_t*, int32x4_t (*)[4]);
constexpr TileFunction kTiles[kTokensPerTile + 1] = {
    nullptr, Int8Tile<1>, Int8Tile<2>, Int8Tile<3>, Int8Tile<4>,
};

// Four rows of either plane against kTokens tokens, of which eight columns are
// `step` bytes behind the eight before.
template <int kTokens>
void PlaneTile(const uint8_t* rows, size_t step, int n_columns, const int8_t* q,
               int32x4_t* sums) {
  const uint8x16_t low_bits = vdupq_n_u8(15);
  int32x4_t acc[kTokens][2];
#pragma GCC unroll 4
  for (int t = 0; t < kTokens; ++t) acc[t][0] = acc[t][1] = vdupq_n_s32(0);
  for (int k = 0; k < n_columns; k += 16) {
    const uint8x16_t b0 = vld1q_u8(rows);
    const uint8x16_t b1 = vld1q_u8(rows + step);
    rows += 2 * step;
    const int8x16_t w0 = vreinterpretq_s8_u8(vandq_u8(b0, low_bits));
    const int8x16_t w1 = vreinterpretq_s8_u8(vshrq_n_u8(b0, 4));
    const int8x16_t w2 = vreinterpretq_s8_u8(vandq_u8(b1, low_bits));
    const int8x16_t w3 = vreinterpretq_s8_u8(vshrq_n_u8(b1, 4));
#pragma GCC unroll 4
    for (int t = 0; t < kTokens; ++t) {
      const int8x16_t x = vld1q_s8(q + static_cast<size_t>(t) * n_columns + k);
      acc[t][0] = vdotq_laneq_s32(acc[t][0], w0, x, 0);
      acc[t][1] = vdotq_laneq_s32(acc[t][1], w1, x, 1);
      acc[t][0] = vdotq_laneq_s32(acc[t][0], w2, x, 2);
      acc[t][1] = vdotq_laneq_s32(acc[t][1], w3, x, 3);
    }
  }
#pragma GCC unroll 4
  for (int t = 0; t < kTokens; ++t) sums[t] = vaddq_s32(acc[t][0], acc[t][1]);
}

using PlaneTileFunction = void (*)(const uint8_t*, size_t, int, const int8_t*,
                                   int32x4_t*);
constexpr PlaneTileFunction kPlaneTiles[kTokensPerTile + 1] = {
    nullptr, PlaneTile<1>, PlaneTile<2>, PlaneTile<3>, PlaneTile<4>,
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
  for (int panel_index = row_begin / kHeadPanelRows;
       panel_index * kHeadPanelRows < row_end; ++panel_index) {
    const size_t at = panel_index * panel_bytes;
    const int first = panel_index * kHeadPanelRows;
    const int begin = first > row_begin ? first : row_begin;
    const int end =
        first + kHeadPanelRows < row_end ? first + kHeadPanelRows : row_end;
    for (int t0 = 0; t0 < x.n_tokens; t0 += kTokensPerTile) {
      const int n_tokens =
          x.n_tokens - t0 < kTokensPerTile ? x.n_tokens - t0 : kTokensPerTile;
      int32x4_t sums[kTokensPerTile][4];
      kTiles[n_tokens](w.upper + at, w.lower + at, w.n_columns,
                       x.q + static_cast<size_t>(t0) * x.n, sums);
      for (int t = 0; t < n_tokens; ++t) {
        const float32x4_t s = vdupq_n_f32(x.s[t0 + t]);
        float scaled[kHeadPanelRows];
        for (int h = 0; h < 4; ++h) {
          vst1q_f32(scaled + 4 * h, vdivq_f32(vcvtq_f32_s32(sums[t][h]), s));
        }
        for (int row = begin; row < end; ++row) {
          logits[(t0 + t) * logits_stride + row] =
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
      for (int h = 0; h < 4; ++h) {
        int32x4_t sums[kTokensPerTile];
        kPlaneTiles[n_tokens](w.upper + panel * panel_bytes + 16 * h, 64,
                              w.n_columns, x.q + static_cast<size_t>(t0) * x.n,
                              sums);
        for (int i = 0; i < n_tokens; ++i) {
          vst1q_s32(
              upper_sums + (t0 + i) * stride + panel * kHeadPanelRows + 4 * h,
              sums[i]);
        }
      }
      for (int t = t0; t < t0 + n_tokens; ++t) {
        const size_t at = t * stride + panel * kHeadPanelRows;
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
    for (int t0 = 0; t0 < x.n_tokens; t0 += kTokensPerTile) {
      const int n_tokens =
          x.n_tokens - t0 < kTokensPerTile ? x.n_tokens - t0 : kTokensPerTile;
      int32x4_t sums[kTokensPerTile];
      kPlaneTiles[n_tokens](w.lower + groups[i] * group_bytes, 16, w.n_columns,
                            x.q + static_cast<size_t>(t0) * x.n, sums);
      for (int j = 0; j < n_tokens; ++j) {
        int32_t lower[kHeadGroupRows];
        vst1q_s32(lower, sums[j]);
        const size_t at = (t0 + j) * stride + groups[i] * kHeadGroupRows;
        StoreGroupLogits(w, x, t0 + j, groups[i], lower, upper_sums + at,
                         logits + at);
      }
    }
  }
}

}  // namespace tern::neon
