#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/canonical_sum.h"
#include "kernels/exp.h"
#include "kernels/float16.h"
#include "kernels/ref.h"
#include "util/logging.h"

namespace tern::ref {
namespace {

constexpr int kMaxHeadDim = 256;

// The softmax of some positions, before the division by its sum.
struct Partial {
  float max;
  float sum;
  float out[kMaxHeadDim];
};

// Element d of the key (or value) of a position.
float KeyAt(const AttentionArgs& a, int kv_head, int position, int d) {
  const size_t block = a.block_table[position / kKvBlockSize];
  const uint16_t* k =
      a.k_pool + block * KvBlockElements(a.n_kv_heads, a.head_dim);
  return HalfToFloat(
      k[(static_cast<size_t>(kv_head) * a.head_dim + d) * kKvBlockSize +
        position % kKvBlockSize]);
}

float ValueAt(const AttentionArgs& a, int kv_head, int position, int d) {
  const size_t block = a.block_table[position / kKvBlockSize];
  const uint16_t* v =
      a.v_pool + block * KvBlockElements(a.n_kv_heads, a.head_dim);
  return HalfToFloat(v[(static_cast<size_t>(kv_head) * kKvBlockSize +
                        position % kKvBlockSize) *
                           a.head_dim +
                       d]);
}

Partial AttendChunk(const AttentionArgs& a, int head, int begin, int end) {
  const int kv_head = head / (a.n_heads / a.n_kv_heads);
  const float* q = a.q + static_cast<size_t>(head) * a.head_dim;
  float p[kAttentionChunk];
  Partial chunk;
  chunk.max = -std::numeric_limits<float>::infinity();
  for (int j = begin; j < end; ++j) {
    float dot = 0.0f;
    for (int d = 0; d < a.head_dim; ++d) {
      dot = std::fma(q[d], KeyAt(a, kv_head, j, d), dot);
    }
    const float score = dot * a.scale;
    p[j - begin] = score;
    if (score > chunk.max) chunk.max = score;
  }
  CanonicalSum sum;
  for (int j = 0; j < end - begin; ++j) {
    p[j] = Exp(p[j] - chunk.max);
    sum.Add(j, p[j]);
  }
  chunk.sum = sum.Total();
  for (int d = 0; d < a.head_dim; ++d) {
    float out = 0.0f;
    for (int j = begin; j < end; ++j) {
      out = std::fma(p[j - begin], ValueAt(a, kv_head, j, d), out);
    }
    chunk.out[d] = out;
  }
  return chunk;
}

void Merge(const Partial& later, int head_dim, Partial* state) {
  const float max = later.max > state->max ? later.max : state->max;
  const float a = Exp(state->max - max);
  const float b = Exp(later.max - max);
  state->max = max;
  state->sum = std::fma(state->sum, a, later.sum * b);
  for (int d = 0; d < head_dim; ++d) {
    state->out[d] = std::fma(state->out[d], a, later.out[d] * b);
  }
}

// The first query.
void AttendOne(const AttentionArgs& args, int head_begin, int head_end,
               float* y) {
  const int n = args.n_positions;
  for (int head = head_begin; head < head_end; ++head) {
    Partial state = AttendChunk(args, head, 0, std::min(n, kAttentionChunk));
    for (int j = kAttentionChunk; j < n; j += kAttentionChunk) {
      Merge(AttendChunk(args, head, j, std::min(n, j + kAttentionChunk)),
            args.head_dim, &state);
    }
    float* out = y + static_cast<size_t>(head) * args.head_dim;
    for (int d = 0; d < args.head_dim; ++d) out[d] = state.out[d] / state.sum;
  }
}

}  // namespace

void StoreKv(const KvBlockView& block, int slot, const float* k,
             const float* v) {
  DCHECK(slot >= 0 && slot < kKvBlockSize);
  for (int h = 0; h < block.n_kv_heads; ++h) {
    for (int d = 0; d < block.head_dim; ++d) {
      const size_t from = static_cast<size_t>(h) * block.head_dim + d;
      block.k[from * kKvBlockSize + slot] = SaturatingFloatToHalf(k[from]);
      block.v[(static_cast<size_t>(h) * kKvBlockSize + slot) * block.head_dim +
              d] = SaturatingFloatToHalf(v[from]);
    }
  }
}

void Attend(const AttentionArgs& args, int head_begin, int head_end, float* y) {
  DCHECK(args.n_positions >= 1 && args.n_queries >= 1);
  DCHECK(args.n_heads % args.n_kv_heads == 0);
  DCHECK(args.head_dim % 2 == 0 && args.head_dim <= kMaxHeadDim);
  const size_t stride = static_cast<size_t>(args.n_heads) * args.head_dim;
  for (int i = 0; i < args.n_queries; ++i) {
    AttentionArgs one = args;
    one.q += i * stride;
    one.n_positions += i;
    AttendOne(one, head_begin, head_end, y + i * stride);
  }
}

}  // namespace tern::ref
