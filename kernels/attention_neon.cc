#include <arm_neon.h>

#include "kernels/attention_chunk.h"
#include "kernels/float16.h"
#include "kernels/lanes_neon.h"
#include "kernels/neon.h"

namespace tern::neon {
namespace {

constexpr int kMaxHeadDim = 256;
// Query heads that share the loads of one key-value head.
constexpr int kMaxHeads = 4;

// The softmax of the positions so far of one head, before the division.
struct State {
  float max;
  float sum;
  float out[kMaxHeadDim];
};

float32x4_t LoadHalf4(const uint16_t* at) {
  return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(at)));
}

// scores[h][j] of the 64 positions of a chunk, used or not. Each key is one
// lane, which adds over d in order. The fewer heads, the more blocks at a time:
// 16 accumulators hide the latency of the additions.
template <int kHeads>
void Scores(const KvChunk& chunk, const float* q, int head_dim, float scale,
            float (*scores)[kAttentionChunk]) {
  constexpr int kBlocks = kBlocksPerChunk / kHeads;
  constexpr int kVectors = kBlocks * kKvBlockSize / 4;
  for (int first = 0; first < kBlocksPerChunk; first += kBlocks) {
    float32x4_t acc[kHeads][kVectors];
#pragma GCC unroll 4
    for (int h = 0; h < kHeads; ++h) {
#pragma GCC unroll 16
      for (int i = 0; i < kVectors; ++i) acc[h][i] = vdupq_n_f32(0.0f);
    }
    for (int d = 0; d < head_dim; ++d) {
#pragma GCC unroll 16
      for (int i = 0; i < kVectors; ++i) {
        const float32x4_t k =
            LoadHalf4(chunk.k[first + i / 4] + d * kKvBlockSize + i % 4 * 4);
#pragma GCC unroll 4
        for (int h = 0; h < kHeads; ++h) {
          acc[h][i] = vfmaq_n_f32(acc[h][i], k, q[h * head_dim + d]);
        }
      }
    }
    // Unrolled as every loop over acc is: else GCC keeps it in memory.
#pragma GCC unroll 4
    for (int h = 0; h < kHeads; ++h) {
#pragma GCC unroll 16
      for (int i = 0; i < kVectors; ++i) {
        vst1q_f32(scores[h] + first * kKvBlockSize + 4 * i,
                  vmulq_n_f32(acc[h][i], scale));
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
template <int kHeads, int kVectors>
void Values(const KvChunk& chunk, const float (*p)[kAttentionChunk],
            int head_dim, int d, bool first, const ChunkFactors* factors,
            State* states) {
  float32x4_t acc[kHeads][kVectors];
#pragma GCC unroll 4
  for (int h = 0; h < kHeads; ++h) {
#pragma GCC unroll 16
    for (int i = 0; i < kVectors; ++i) acc[h][i] = vdupq_n_f32(0.0f);
  }
  for (int j = 0; j < chunk.n_positions; ++j) {
    const uint16_t* row =
        chunk.v[j / kKvBlockSize] + j % kKvBlockSize * head_dim + d;
#pragma GCC unroll 16
    for (int i = 0; i < kVectors; ++i) {
      const float32x4_t v = LoadHalf4(row + 4 * i);
#pragma GCC unroll 4
      for (int h = 0; h < kHeads; ++h) {
        acc[h][i] = vfmaq_n_f32(acc[h][i], v, p[h][j]);
      }
    }
  }
#pragma GCC unroll 4
  for (int h = 0; h < kHeads; ++h) {
#pragma GCC unroll 16
    for (int i = 0; i < kVectors; ++i) {
      float* out = states[h].out + d + 4 * i;
      float32x4_t merged = acc[h][i];
      if (!first) {
        merged = vfmaq_n_f32(vmulq_n_f32(merged, factors[h].new_factor),
                             vld1q_f32(out), factors[h].old_factor);
      }
      vst1q_f32(out, merged);
    }
  }
}

// The same for the dims that do not fill a vector.
void ValuesTail(const KvChunk& chunk, const float* p, int head_dim, int d,
                bool first, const ChunkFactors& factors, State* state) {
  for (; d < head_dim; ++d) {
    float acc = 0.0f;
    for (int j = 0; j < chunk.n_positions; ++j) {
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

template <int kHeads>
void AttendHeads(const AttentionArgs& a, int head, float* y) {
  constexpr int kVectors = 16 / kHeads;
  const int head_dim = a.head_dim;
  const int kv_head = head / (a.n_heads / a.n_kv_heads);
  const float* q = a.q + static_cast<size_t>(head) * head_dim;

  State states[kHeads];
  float scores[kHeads][kAttentionChunk];
  ChunkFactors factors[kHeads];
  for (int begin = 0; begin < a.n_positions; begin += kAttentionChunk) {
    const bool first = begin == 0;
    const KvChunk chunk = MakeKvChunk(a, kv_head, begin, a.n_positions);
    Scores<kHeads>(chunk, q, head_dim, a.scale, scores);
    for (int h = 0; h < kHeads; ++h) {
      factors[h] = Softmax(scores[h], chunk.n_positions, first, &states[h]);
    }
    int d = 0;
    for (; d + 4 * kVectors <= head_dim; d += 4 * kVectors) {
      Values<kHeads, kVectors>(chunk, scores, head_dim, d, first, factors,
                               states);
    }
    for (; d + 4 <= head_dim; d += 4) {
      Values<kHeads, 1>(chunk, scores, head_dim, d, first, factors, states);
    }
    for (int h = 0; h < kHeads; ++h) {
      ValuesTail(chunk, scores[h], head_dim, d, first, factors[h], &states[h]);
    }
  }
  for (int h = 0; h < kHeads; ++h) {
    float* out = y + static_cast<size_t>(head + h) * head_dim;
    for (int d = 0; d < head_dim; ++d) {
      out[d] = states[h].out[d] / states[h].sum;
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

// The first query.
void AttendOne(const AttentionArgs& args, int head_begin, int head_end,
               float* y) {
  const int group = args.n_heads / args.n_kv_heads;
  int head = head_begin;
  while (head < head_end) {
    const int group_end = (head / group + 1) * group;
    const int end = group_end < head_end ? group_end : head_end;
    if (end - head >= kMaxHeads) {
      AttendHeads<kMaxHeads>(args, head, y);
      head += kMaxHeads;
    } else if (end - head >= 2) {
      AttendHeads<2>(args, head, y);
      head += 2;
    } else {
      AttendHeads<1>(args, head, y);
      ++head;
    }
  }
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
  const size_t stride = static_cast<size_t>(args.n_heads) * args.head_dim;
  for (int i = 0; i < args.n_queries; ++i) {
    AttentionArgs one = args;
    one.q += i * stride;
    one.n_positions += i;
    AttendOne(one, head_begin, head_end, y + i * stride);
  }
}

}  // namespace tern::neon
