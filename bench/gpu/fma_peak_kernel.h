#ifndef BENCH_GPU_FMA_PEAK_KERNEL_H_
#define BENCH_GPU_FMA_PEAK_KERNEL_H_

#include "kernels/cuda/simt.h"

namespace tern {

// Adds products in registers, in float32, and does nothing else: what attention
// is held against where it does not wait for memory.
struct FmaPeakKernel {
  static constexpr int kThreads = 256;
  static constexpr int kBlocksPerSm = 4;
  static constexpr int kChains = 16;  // independent sums of a thread
  struct Args {
    float factor;
    float* sums;  // [blocks * kThreads]
    int rounds;   // of kChains products
  };

  SIMT_DEVICE static void Run(const Args& args) {
    float sums[kChains];
    SIMT_UNROLL
    for (int i = 0; i < kChains; ++i) {
      sums[i] = static_cast<float>(simt::ThreadIndex() + i);
    }
    for (int round = 0; round < args.rounds; ++round) {
      SIMT_UNROLL
      for (int i = 0; i < kChains; ++i) {
        sums[i] = simt::Fma(sums[i], args.factor, args.factor);
      }
    }
    float total = 0;
    SIMT_UNROLL
    for (int i = 0; i < kChains; ++i) total = total + sums[i];
    simt::Store(
        &args.sums[simt::BlockX() * simt::ThreadCount() + simt::ThreadIndex()],
        total);
  }
};

}  // namespace tern

#endif  // BENCH_GPU_FMA_PEAK_KERNEL_H_
