#ifndef KERNELS_CUDA_ATTENTION_MERGE_KERNEL_H_
#define KERNELS_CUDA_ATTENTION_MERGE_KERNEL_H_

#include <cstdint>

#include "kernels/attention.h"
#include "kernels/cuda/attention_batch.h"
#include "kernels/cuda/exact_math.h"
#include "kernels/cuda/simt.h"

namespace tern::cuda {

// Merges what AttentionKernel left in AttentionBatch::partials, from left to
// right: a warp for each token and query head, numbered by run.
//
//   BlockX * warps + warp   (run * run_tokens_max + token of run) * n_heads +
//                           query head
struct AttentionMergeKernel {
  static constexpr int kThreads = 128;
  static constexpr int kBlocksPerSm = 8;
  using Args = AttentionBatch;

  SIMT_DEVICE static void Run(const Args& a) {
    const int warps = simt::ThreadCount() / simt::kWarpSize;
    const int task = simt::BlockX() * warps + simt::WarpIndex();
    const int head = task % a.n_heads;
    const int in_run = task / a.n_heads % a.run_tokens_max;
    const int run_index = task / a.n_heads / a.run_tokens_max;
    if (run_index >= a.n_runs) return;
    const AttentionRun run = simt::Load(&a.runs[run_index]);
    if (in_run >= run.n_tokens) return;
    const int64_t row =
        static_cast<int64_t>(run.first_token + in_run) * a.n_heads + head;
    Merge(a, row, run.n_positions + in_run);
  }

 private:
  // Elements of a head that a lane has.
  static constexpr int kElements = kAttentionHeadDimMax / simt::kWarpSize;

  SIMT_DEVICE static void Merge(const Args& a, int64_t row, int n_positions) {
    const int partial_floats = a.head_dim + kAttentionPartialExtra;
    const int64_t chunk_floats =
        static_cast<int64_t>(a.n_tokens) * a.n_heads * partial_floats;
    const float* partial = a.partials + row * partial_floats;
    float out[kElements];
    Load(a, partial, out);
    float max = simt::Load(partial + a.head_dim);
    float sum = simt::Load(partial + a.head_dim + 1);
    for (int begin = kAttentionChunk; begin < n_positions;
         begin += kAttentionChunk) {
      partial += chunk_floats;
      float later[kElements];
      Load(a, partial, later);
      const float later_max = simt::Load(partial + a.head_dim);
      const float later_sum = simt::Load(partial + a.head_dim + 1);
      const float merged = MaxOf(later_max, max);
      const float old_factor = Exp(max - merged);
      const float new_factor = Exp(later_max - merged);
      max = merged;
      sum = simt::Fma(sum, old_factor, later_sum * new_factor);
      SIMT_UNROLL
      for (int i = 0; i < kElements; ++i) {
        out[i] = simt::Fma(out[i], old_factor, later[i] * new_factor);
      }
    }
    SIMT_UNROLL
    for (int i = 0; i < kElements; ++i) {
      const int d = simt::LaneIndex() + i * simt::kWarpSize;
      if (d >= a.head_dim) continue;
      simt::Store(a.y + row * a.head_dim + d, simt::Divide(out[i], sum));
    }
  }

  SIMT_DEVICE static void Load(const Args& a, const float* partial,
                               float (&out)[kElements]) {
    SIMT_UNROLL
    for (int i = 0; i < kElements; ++i) {
      const int d = simt::LaneIndex() + i * simt::kWarpSize;
      out[i] = d < a.head_dim ? simt::Load(partial + d) : 0.0f;
    }
  }
};

}  // namespace tern::cuda

#endif  // KERNELS_CUDA_ATTENTION_MERGE_KERNEL_H_
