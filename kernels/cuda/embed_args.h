#ifndef KERNELS_CUDA_EMBED_ARGS_H_
#define KERNELS_CUDA_EMBED_ARGS_H_

#include <cstdint>

#include "kernels/head.h"

namespace tern::cuda {

// Copies the embedding of each token to x, widened to float32: the value
// itself. Pointers are to device memory.
struct EmbedArgs {
  const void* table = nullptr;       // [vocab_size, n], rows as in the file
  DenseType type = DenseType::kF32;  // kF32, kF16 or kBF16
  const int32_t* ids = nullptr;      // [tokens]
  float* x = nullptr;                // [tokens, n]
  int n = 0;
};

// x[i] = x[i] + y[i].
struct AddArgs {
  float* x = nullptr;        // [n]
  const float* y = nullptr;  // [n]
  int64_t n = 0;
};

}  // namespace tern::cuda

#endif  // KERNELS_CUDA_EMBED_ARGS_H_
