#ifndef KERNELS_CUDA_ATTENTION_PLAN_H_
#define KERNELS_CUDA_ATTENTION_PLAN_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "kernels/cuda/attention_batch.h"
#include "kernels/cuda/device_limits.h"
#include "kernels/cuda/launch_shape.h"

namespace tern::cuda {

// What a step asks of attention, in every layer alike.
struct AttentionWork {
  int n_runs;
  int run_tokens_max;   // tokens of the longest run
  int n_positions_max;  // that any of its tokens sees
  int n_tokens;
  int n_heads;
  int n_kv_heads;
  int head_dim;
};

// INVALID_ARGUMENT when the kernels cannot attend with such heads.
absl::Status CheckAttentionShape(int n_heads, int n_kv_heads, int head_dim);

// Which of the kernel's tiles a step takes and in how many blocks. All plans
// give the same bits; they differ in speed alone.
struct AttentionPlan {
  int tile_rows;  // one of kAttentionTileRows
  bool splits;    // a warp takes one chunk; AttentionMergeKernel follows
  simt::LaunchShape attend;
  simt::LaunchShape merge;  // if it splits
};

// Tokens of a run of a prompt that fill a tile of the widest kind.
int AttentionRunTokens(int n_heads, int n_kv_heads);

// Bytes of partial results of a step.
size_t AttentionPartialBytes(const AttentionWork& work);

// The plan for a device with room for `partials_bytes` of partial results.
// Pure. REQUIRES: heads pass CheckAttentionShape(); every number of `work`
// positive.
AttentionPlan PlanAttention(const AttentionWork& work,
                            const DeviceLimits& device, size_t partials_bytes);

// The plan with a given tile and split, for tests and measurements.
// REQUIRES: tile_rows is one of AttentionPlan's.
AttentionPlan PlanAttentionAs(const AttentionWork& work,
                              const DeviceLimits& device, int tile_rows,
                              bool splits);

}  // namespace tern::cuda

#endif  // KERNELS_CUDA_ATTENTION_PLAN_H_
