#include <cuda_runtime.h>

#include "kernels/cuda/attention.h"
#include "kernels/cuda/attention_kernel.h"
#include "kernels/cuda/attention_merge_kernel.h"
#include "kernels/cuda/launch.h"

namespace tern::cuda {
namespace {

// Calls fn(AttentionKernel<...>()) with the kernel of a tile.
template <typename Fn>
cudaError_t WithTile(int tile_rows, Fn fn) {
  switch (tile_rows) {
    case 1:
      return fn(AttentionTile<1>());
    case 2:
      return fn(AttentionTile<2>());
    case 4:
      return fn(AttentionTile<4>());
    case 8:
      return fn(AttentionTile<8>());
    default:
      return fn(AttentionTile<16>());
  }
}

}  // namespace

absl::Status PrepareAttention(int shared_bytes_per_block) {
  for (const int tile_rows : kAttentionTileRows) {
    const cudaError_t error = WithTile(tile_rows, [&](auto tile) {
      return simt::AllowShared<typename decltype(tile)::Kernel>(
          shared_bytes_per_block);
    });
    if (error != cudaSuccess) {
      return CudaStatus(error, "shared memory for attention");
    }
  }
  return absl::OkStatus();
}

absl::Status LaunchAttention(const AttentionPlan& plan,
                             const AttentionBatch& batch, CudaStream stream) {
  cudaError_t error = WithTile(plan.tile_rows, [&](auto tile) {
    return simt::Launch<typename decltype(tile)::Kernel>(
        plan.attend, batch, static_cast<cudaStream_t>(stream));
  });
  if (error == cudaSuccess && plan.splits) {
    error = simt::Launch<AttentionMergeKernel>(
        plan.merge, batch, static_cast<cudaStream_t>(stream));
  }
  return CudaStatus(error, "launch of attention");
}

}  // namespace tern::cuda
