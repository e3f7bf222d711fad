#ifndef KERNELS_CUDA_EMBED_KERNEL_H_
#define KERNELS_CUDA_EMBED_KERNEL_H_

#include <cstdint>

#include "kernels/cuda/embed_args.h"
#include "kernels/cuda/launch_shape.h"
#include "kernels/cuda/simt.h"
#include "kernels/head.h"

namespace tern::cuda {

// EmbedArgs, a block for each token (BlockX).
struct EmbedKernel {
  static constexpr int kThreads = 256;
  static constexpr int kBlocksPerSm = 6;
  using Args = EmbedArgs;

  static simt::LaunchShape Shape(int n_tokens) {
    simt::LaunchShape shape;
    shape.grid_x = n_tokens;
    shape.threads = kThreads;
    return shape;
  }

  SIMT_DEVICE static void Run(const Args& a) {
    const int64_t row = simt::Load(a.ids + simt::BlockX());
    float* const x = a.x + int64_t{simt::BlockX()} * a.n;
    for (int i = simt::ThreadIndex(); i < a.n; i += simt::ThreadCount()) {
      simt::Store(x + i, Element(a, row * a.n + i));
    }
  }

 private:
  SIMT_DEVICE static float Element(const Args& a, int64_t i) {
    if (a.type == DenseType::kF32) {
      return simt::Load(static_cast<const float*>(a.table) + i);
    }
    const uint16_t half = simt::Load(static_cast<const uint16_t*>(a.table) + i);
    if (a.type == DenseType::kF16) return simt::HalfToFloat(half);
    return simt::FloatOfBits(uint32_t{half} << 16);
  }
};

// AddArgs, the threads of all blocks side by side.
struct AddKernel {
  static constexpr int kThreads = 256;
  static constexpr int kBlocksPerSm = 6;
  using Args = AddArgs;

  static simt::LaunchShape Shape(int64_t n) {
    simt::LaunchShape shape;
    shape.grid_x = static_cast<int>((n + kThreads - 1) / kThreads);
    shape.threads = kThreads;
    return shape;
  }

  SIMT_DEVICE static void Run(const Args& a) {
    const int64_t i =
        int64_t{simt::BlockX()} * simt::ThreadCount() + simt::ThreadIndex();
    if (i >= a.n) return;
    simt::Store(a.x + i, simt::Load(a.x + i) + simt::Load(a.y + i));
  }
};

}  // namespace tern::cuda

#endif  // KERNELS_CUDA_EMBED_KERNEL_H_
