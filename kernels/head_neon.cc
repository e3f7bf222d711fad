#include <arm_neon.h>

#include <cstring>

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

}  // namespace tern::neon
