#ifndef KERNELS_CUDA_ROPE_ARGS_H_
#define KERNELS_CUDA_ROPE_ARGS_H_

#include <cstdint>

namespace tern::cuda {

// Where a token stands and where its keys and values go.
struct alignas(8) TokenPlace {
  int32_t position;  // of the sequence, below the rows of the tables
  int32_t slot;      // KV block * kKvBlockSize + position in the block
};

// Rotates the queries and keys of each token by its position and puts its keys
// and values, rounded to float16, into a layer's pool: bit for bit as
// docs/exactness.md, sections 6 and 8. Pointers are to device memory.
struct RopeArgs {
  float* q = nullptr;        // [tokens][n_heads, head_dim], rotated in place
  int64_t q_stride = 0;      // elements from a token to the next
  const float* k = nullptr;  // [tokens][n_kv_heads, head_dim]
  const float* v = nullptr;  // the same
  int64_t kv_stride = 0;
  const TokenPlace* places = nullptr;  // [tokens]
  const float* cos = nullptr;  // [positions, head_dim / 2], of RopeTable
  const float* sin = nullptr;  // the same
  uint16_t* k_pool = nullptr;  // blocks as KvBlockView has them
  uint16_t* v_pool = nullptr;
  int n_heads = 0;
  int n_kv_heads = 0;
  int head_dim = 0;      // even
  bool is_neox = false;  // element i is paired with i + head_dim / 2, not 2i
                         // with 2i + 1
};

}  // namespace tern::cuda

#endif  // KERNELS_CUDA_ROPE_ARGS_H_
