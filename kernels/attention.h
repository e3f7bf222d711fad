#ifndef KERNELS_ATTENTION_H_
#define KERNELS_ATTENTION_H_

#include <cstddef>
#include <cstdint>

namespace tern {

// Tokens per KV block. A divisor of kAttentionChunk, so that chunks are whole
// blocks.
inline constexpr int kKvBlockSize = 16;

// Positions that softmax treats together before merging, left to right.
inline constexpr int kAttentionChunk = 64;

// One block of one layer: the keys and values of kKvBlockSize positions.
// Borrowed. Values are IEEE float16; what is larger in magnitude than 65504
// (and NaN) is stored as +-65504 (NaN as +65504).
struct KvBlockView {
  uint16_t* k;  // [n_kv_heads, head_dim, kKvBlockSize] float16, 64-byte aligned
  uint16_t* v;  // [n_kv_heads, kKvBlockSize, head_dim] float16, 64-byte aligned
  int n_kv_heads;
  int head_dim;
};

// Elements of `k` (and of `v`) of one block.
inline constexpr size_t KvBlockElements(int n_kv_heads, int head_dim) {
  return static_cast<size_t>(n_kv_heads) * head_dim * kKvBlockSize;
}

// Causal attention of consecutive query tokens of one sequence over a paged KV
// cache.
//
// For query i and each query head h of [head_begin, head_end), with kv head
// h / (n_heads / n_kv_heads) and n = n_positions + i:
//   y[i][h] = softmax(q[i][h] . k[0..n) * scale) . v[0..n)
// in the order of docs/exactness.md (chunks of 64 positions, merged left to
// right). What lies in slots at and after n has no influence (it may be loaded,
// as a part of its block). Queries together are faster than one by one, since
// they share the loads of keys and values, and give the same bits.
struct AttentionArgs {
  const float* q;  // [n_queries, n_heads, head_dim], rotated
  // Base of this layer's keys and values in the pool; block b starts at
  // b * KvBlockElements(n_kv_heads, head_dim). Laid out as in KvBlockView.
  const uint16_t* k_pool;
  const uint16_t* v_pool;
  // [ceil((n_positions + n_queries - 1) / kKvBlockSize)]
  const int32_t* block_table;
  int n_positions;  // that the first query sees: its own position + 1
  int n_heads;      // a multiple of n_kv_heads
  int n_kv_heads;
  int head_dim;  // even, at most 256
  float scale;   // (float)(1 / sqrt((double)head_dim))
  int n_queries = 1;
};
// Output of Kernels::attend: y float [n_queries, n_heads, head_dim]; only the
// heads of the range are written. Must not alias q.

}  // namespace tern

#endif  // KERNELS_ATTENTION_H_
