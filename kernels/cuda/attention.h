#ifndef KERNELS_CUDA_ATTENTION_H_
#define KERNELS_CUDA_ATTENTION_H_

#include "absl/status/status.h"
#include "kernels/cuda/attention_batch.h"
#include "kernels/cuda/attention_plan.h"
#include "kernels/cuda/device.h"

namespace tern::cuda {

// Lets LaunchAttention() have blocks with up to so much shared memory on the
// current device. Once, before the first call; not while a graph is captured.
absl::Status PrepareAttention(int shared_bytes_per_block);

// Enqueues the kernels of a plan on `stream`; batch.partials is not null if the
// plan splits, and null otherwise. Never blocks or allocates. Errors of the
// kernels themselves appear at a later synchronisation.
absl::Status LaunchAttention(const AttentionPlan& plan,
                             const AttentionBatch& batch, CudaStream stream);

}  // namespace tern::cuda

#endif  // KERNELS_CUDA_ATTENTION_H_
