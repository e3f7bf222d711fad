#ifndef KERNELS_CUDA_ATTENTION_BATCH_H_
#define KERNELS_CUDA_ATTENTION_BATCH_H_

#include <cstddef>
#include <cstdint>

namespace tern::cuda {

// Consecutive query tokens of one sequence, which share the reads of its keys
// and values: one token at decode, a few of a prompt.
struct alignas(16) AttentionRun {
  int32_t first_token;  // of the step
  int32_t n_tokens;
  int32_t n_positions;  // that the first one sees: its own position + 1
  int32_t table_begin;  // of its sequence, in AttentionBatch::block_tables
};

// Causal attention over a paged KV cache, of docs/exactness.md, section 9, bit
// for bit. Keys and values lie as on a CPU (kernels/attention.h). Pointers are
// to device memory.
struct AttentionBatch {
  const float* q = nullptr;  // [tokens][n_heads, head_dim], rotated
  int64_t q_stride = 0;      // elements from a token to the next
  const uint16_t* k_pool = nullptr;
  const uint16_t* v_pool = nullptr;
  const int32_t* block_tables = nullptr;
  const AttentionRun* runs = nullptr;  // [n_runs]
  int n_runs = 0;
  int n_heads = 0;  // a multiple of n_kv_heads
  int n_kv_heads = 0;
  int head_dim = 0;        // a multiple of 4, at most kAttentionHeadDimMax
  float scale = 0;         // (float)(1 / sqrt((double)head_dim))
  float* y = nullptr;      // [tokens, n_heads, head_dim]
  int run_tokens_max = 1;  // tokens of the longest run
  // Null, or the chunks' results for AttentionMergeKernel:
  // float [chunks][n_tokens * n_heads][head_dim + kAttentionPartialExtra].
  float* partials = nullptr;
  int n_tokens = 0;  // of the step
};

inline constexpr int kAttentionHeadDimMax = 256;

// Floats of a chunk's result for a row beside the head_dim weighted values: the
// maximum score, the sum of the weights, and two that keep rows aligned.
inline constexpr int kAttentionPartialExtra = 4;

}  // namespace tern::cuda

#endif  // KERNELS_CUDA_ATTENTION_BATCH_H_
