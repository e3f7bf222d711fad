#include <arm_neon.h>

#include "kernels/attention_chunk.h"
#include "kernels/float16.h"
#include "kernels/lanes_neon.h"
#include "kernels/neon.h"

namespace tern::neon {
namespace {

constexpr int kMaxHeadDim = 256;
// Rows, each a query and a query head, that share the loads of one key-value
// head.
constexpr int kMaxRows = 4;

using Row = AttentionRow;

// The softmax of the positions so far of one row, before the division.
struct State {
  float max;
  float sum;
  float out[kMaxHeadDim];
};

float32x4_t LoadHalf4(const uint16_t* at) {
  return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(at)));
}

// scores[r][j] of the 64 positions of a chunk, used or not. Each key is one
// lane, which adds over d in order. The fewer rows, the more blocks at a time:
// 16 accumulators hide the latency of the additions.
template <int kRows>
void Scores(const KvChunk& chunk, const Row* rows, int head_dim, float scale,
            float (*scores)[kAttentionChunk]) {
  constexpr int kBlocks = kBlocksPerChunk / kRows;
  constexpr int kVectors = kBlocks * kKvBlockSize / 4;
  for (int first = 0; first < kBlocksPerChunk; first += kBlocks) {
    float32x4_t acc[kRows][kVectors];
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
      for (int i = 0; i < kVectors; ++i) acc[r][i] = vdupq_n_f32(0.0f);
    }
    for (int d = 0; d < head_dim; ++d) {
#pragma GCC unroll 16
      for (int i = 0; i < kVectors; ++i) {
        const float32x4_t k =
            LoadHalf4(chunk.k[first + i / 4] + d * kKvBlockSize + i % 4 * 4);
#pragma GCC unroll 4
        for (int r = 0; r < kRows; ++r) {
          acc[r][i] = vfmaq_n_f32(acc[r][i], k, rows[r].q[d]);
        }
      }
    }
    // Unrolled as every loop over acc is: else GCC keeps it in memory.
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
      for (int i = 0; i < kVectors; ++i) {
        vst1q_f32(scores[r] + first * kKvBlockSize + 4 * i,
                  vmulq_n_f32(acc[r][i], scale));
      }
    }
  }
}

// Replaces the first n scores by their weights and merges maximum and sum into
// the state.
ChunkFactors Softmax(float* scores, int n, bool first, State* state) {
  const float32x4_t lowest = vdupq_n_f32(-__builtin_inff());
  float32x4_t m = lowest;
  for (int j = 0; j < n; j += 4) {
    const float32x4_t s =
        vbslq_f32(FirstLanes(n - j), vld1q_f32(scores + j), lowest);
    m = Max(s, m);
  }
  // No NaN is left. Which zero is the maximum does not matter to an
  // exponential.
  const float max = vmaxvq_f32(m);

  // Weights are never negative, so that adding +0 for an unused position leaves
  // its lane as it is.
  const float32x4_t zero = vdupq_n_f32(0.0f);
  float32x4_t lanes[4] = {zero, zero, zero, zero};
  for (int j = 0; j < n; j += 16) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      float* const four = scores + j + 4 * i;
      const float32x4_t p =
          vbslq_f32(FirstLanes(n - j - 4 * i),
                    Exp(vsubq_f32(vld1q_f32(four), vdupq_n_f32(max))), zero);
      vst1q_f32(four, p);
      lanes[i] = vaddq_f32(lanes[i], p);
    }
  }
  const float sum = Total(lanes);
  if (first) {
    state->max = max;
    state->sum = sum;
    return {0.0f, 1.0f};
  }
  const float merged = max > state->max ? max : state->max;
  const float32x4_t maxima = {state->max, max, merged, merged};
  const float32x4_t factors = Exp(vsubq_f32(maxima, vdupq_n_f32(merged)));
  const float a = vgetq_lane_f32(factors, 0);
  const float b = vgetq_lane_f32(factors, 1);
  state->max = merged;
  state->sum = __builtin_fmaf(state->sum, a, sum * b);
  return {a, b};
}

// Merges dims [d, d + 4 * kVectors) of the chunk's weighted values into out.
// Row r sees the first n[r] positions, no row fewer than the one before.
template <int kRows, int kVectors>
void Values(const KvChunk& chunk, const float (*p)[kAttentionChunk],
            const int* n, int head_dim, int d, bool first,
            const ChunkFactors* factors, State* states) {
  float32x4_t acc[kRows][kVectors];
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
    for (int i = 0; i < kVectors; ++i) acc[r][i] = vdupq_n_f32(0.0f);
  }
  const auto row_at = [&](int j) {
    return chunk.v[j / kKvBlockSize] + j % kKvBlockSize * head_dim + d;
  };
  for (int j = 0; j < n[0]; ++j) {
    const uint16_t* const row = row_at(j);
#pragma GCC unroll 16
    for (int i = 0; i < kVectors; ++i) {
      const float32x4_t v = LoadHalf4(row + 4 * i);
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) {
        acc[r][i] = vfmaq_n_f32(acc[r][i], v, p[r][j]);
      }
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
    // Later queries see some positions more.
    for (int j = n[0]; j < n[r]; ++j) {
      const uint16_t* const row = row_at(j);
#pragma GCC unroll 16
      for (int i = 0; i < kVectors; ++i) {
        acc[r][i] = vfmaq_n_f32(acc[r][i], LoadHalf4(row + 4 * i), p[r][j]);
      }
    }
    if (n[r] == 0) continue;
#pragma GCC unroll 16
    for (int i = 0; i < kVectors; ++i) {
      float* out = states[r].out + d + 4 * i;
      float32x4_t merged = acc[r][i];
      if (!first) {
        merged = vfmaq_n_f32(vmulq_n_f32(merged, factors[r].new_factor),
                             vld1q_f32(out), factors[r].old_factor);
      }
      vst1q_f32(out, merged);
    }
  }
}

// The same for one row and the dims that do not fill a vector.
void ValuesTail(const KvChunk& chunk, const float* p, int n, int head_dim,
                int d, bool first, const ChunkFactors& factors, State* state) {
  for (; d < head_dim; ++d) {
    float acc = 0.0f;
    for (int j = 0; j < n; ++j) {
      const uint16_t half =
          chunk.v[j / kKvBlockSize][j % kKvBlockSize * head_dim + d];
      acc = __builtin_fmaf(p[j], HalfToFloat(half), acc);
    }
    float& out = state->out[d];
    out = first ? acc
                : __builtin_fmaf(out, factors.old_factor,
                                 acc * factors.new_factor);
  }
}

// Rows of one key-value head, none of which sees fewer positions than the one
// before.
template <int kRows>
void AttendRows(const AttentionArgs& a, int kv_head, const Row* rows) {
  constexpr int kVectors = 16 / kRows;
  const int head_dim = a.head_dim;
  const int n_positions = rows[kRows - 1].n_positions;
  State states[kRows];
  float scores[kRows][kAttentionChunk];
  ChunkFactors factors[kRows];
  int n[kRows];  // positions of the chunk that a row sees
  for (int begin = 0; begin < n_positions; begin += kAttentionChunk) {
    const bool first = begin == 0;
    const KvChunk chunk = MakeKvChunk(a, kv_head, begin, n_positions);
    Scores<kRows>(chunk, rows, head_dim, a.scale, scores);
    for (int r = 0; r < kRows; ++r) {
      const int left = rows[r].n_positions - begin;
      n[r] = left < 0 ? 0 : left < kAttentionChunk ? left : kAttentionChunk;
      if (n[r] > 0) factors[r] = Softmax(scores[r], n[r], first, &states[r]);
    }
    int d = 0;
    for (; d + 4 * kVectors <= head_dim; d += 4 * kVectors) {
      Values<kRows, kVectors>(chunk, scores, n, head_dim, d, first, factors,
                              states);
    }
    for (; d + 4 <= head_dim; d += 4) {
      Values<kRows, 1>(chunk, scores, n, head_dim, d, first, factors, states);
    }
    for (int r = 0; r < kRows; ++r) {
      if (n[r] == 0) continue;
      ValuesTail(chunk, scores[r], n[r], head_dim, d, first, factors[r],
                 &states[r]);
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int d = 0; d < head_dim; ++d) {
      rows[r].y[d] = states[r].out[d] / states[r].sum;
    }
  }
}

// Four values saturated to the range of float16, NaN to +65504, and rounded.
uint16x4_t ToHalf4(float32x4_t x) {
  const float32x4_t most = vdupq_n_f32(65504.0f);
  float32x4_t c = vbslq_f32(vcltq_f32(x, most), x, most);
  c = Max(c, vdupq_n_f32(-65504.0f));
  return vreinterpret_u16_f16(vcvt_f16_f32(c));
}

}  // namespace

void StoreKv(const KvBlockView& block, int slot, const float* k,
             const float* v) {
  const int head_dim = block.head_dim;
  for (int h = 0; h < block.n_kv_heads; ++h) {
    const size_t from = static_cast<size_t>(h) * head_dim;
    uint16_t* k_out = block.k + from * kKvBlockSize + slot;
    uint16_t* v_out =
        block.v + from * kKvBlockSize + static_cast<size_t>(slot) * head_dim;
    int d = 0;
    for (; d + 4 <= head_dim; d += 4) {
      // A key goes to every 16th element: no vector store fits.
      const uint16x4_t halves = ToHalf4(vld1q_f32(k + from + d));
      uint16_t* to = k_out + d * kKvBlockSize;
      vst1_lane_u16(to, halves, 0);
      vst1_lane_u16(to + kKvBlockSize, halves, 1);
      vst1_lane_u16(to + 2 * kKvBlockSize, halves, 2);
      vst1_lane_u16(to + 3 * kKvBlockSize, halves, 3);
      vst1_u16(v_out + d, ToHalf4(vld1q_f32(v + from + d)));
    }
    for (; d < head_dim; ++d) {
      k_out[d * kKvBlockSize] = SaturatingFloatToHalf(k[from + d]);
      v_out[d] = SaturatingFloatToHalf(v[from + d]);
    }
  }
}

void Attend(const AttentionArgs& args, int head_begin, int head_end, float* y) {
  Row rows[kMaxRows];
  int n_rows = 0;
  VisitAttentionRows(
      args, head_begin, head_end, y,
      [&](int kv_head, const Row& row) {
        rows[n_rows++] = row;
        if (n_rows < kMaxRows) return;
        AttendRows<kMaxRows>(args, kv_head, rows);
        n_rows = 0;
      },
      [&](int kv_head) {
        if (n_rows >= 2) AttendRows<2>(args, kv_head, rows);
        if (n_rows % 2 == 1) AttendRows<1>(args, kv_head, rows + n_rows - 1);
        n_rows = 0;
      });
}

}  // namespace tern::neon
