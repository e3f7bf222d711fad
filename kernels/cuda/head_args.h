#ifndef KERNELS_CUDA_HEAD_ARGS_H_
#define KERNELS_CUDA_HEAD_ARGS_H_

#include <cstdint>

namespace tern::cuda {

// Logits in head mode `int8`, for each token:
//
//   logits[row] = ((float)(sum_k w[row][k] * q[k]) / s) * row_scale[row]
//
// the sum in int32, bit for bit as docs/exactness.md, section 11. Pointers are
// to device memory.
struct HeadArgs {
  const int8_t* tiles = nullptr;     // head_tiles.h, 16-byte aligned
  const float* row_scale = nullptr;  // [n_rows]
  const int8_t* q = nullptr;         // [n_tokens, n_columns], 16-byte aligned
  const float* s = nullptr;          // [n_tokens]
  float* logits = nullptr;           // [n_tokens][n_rows]
  int64_t logits_stride = 0;         // elements from a token to the next
  int n_rows = 0;
  int n_columns = 0;  // a multiple of 16, at most kHeadColumnsMax
  int n_tokens = 0;
};

// So that two tokens fit the shared memory that any block has.
inline constexpr int kHeadColumnsMax = 24 << 10;

}  // namespace tern::cuda

#endif  // KERNELS_CUDA_HEAD_ARGS_H_
