#ifndef KERNELS_CUDA_TERNARY_PLAN_H_
#define KERNELS_CUDA_TERNARY_PLAN_H_

#include <cstddef>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "kernels/cuda/device_limits.h"
#include "kernels/cuda/launch_shape.h"

namespace tern {

// Which kernel multiplies.
enum class TernaryKernel {
  kGemv1,  // dp4a, for 1 and for 2 tokens
  kGemv2,
  kSkinny8,  // mma.sync, for up to 8 and 16 tokens: no block waits for another
  kSkinny16,
  kMma8,  // mma.sync, by the most tokens of a block
  kMma16,
  kMma32,
  kMma64,
  kMma128,
  kWgmma128,  // wgmma, where the device has it
};
inline constexpr TernaryKernel kAllTernaryKernels[] = {
    TernaryKernel::kGemv1,    TernaryKernel::kGemv2, TernaryKernel::kSkinny8,
    TernaryKernel::kSkinny16, TernaryKernel::kMma8,  TernaryKernel::kMma16,
    TernaryKernel::kMma32,    TernaryKernel::kMma64, TernaryKernel::kMma128,
    TernaryKernel::kWgmma128};
// "gemv1", "mma8", ...
absl::string_view TernaryKernelName(TernaryKernel kernel);

// How a TernaryMatmulArgs is computed.
struct TernaryMatmulPlan {
  TernaryKernel kernel;
  simt::LaunchShape shape;
  // Into how many parts the columns are cut: among the warps of a block by
  // kGemv* and kSkinny*, among blocks by the others.
  int column_splits;
  // Lengths of TernaryMatmulArgs::partial_sums and arrivals, in integers.
  size_t partial_sums;
  size_t arrivals;
};

// A plan for one multiplication; the results are the same bits for every plan.
// Pure. INVALID_ARGUMENT when n_in is not a multiple of 16 in [16, 2^17), or a
// size is not positive, or beyond what a grid can have.
absl::StatusOr<TernaryMatmulPlan> PlanTernaryMatmul(const DeviceLimits& device,
                                                    int n_tokens, int n_out,
                                                    int n_in);

// The same with the kernel and the splits given, to measure and to test others.
// INVALID_ARGUMENT also when the kernel takes fewer tokens, the splits are not
// in 1 .. ColumnTiles(n_in) (of kGemv* and kSkinny*: a power of two up to 8),
// or the device has no wgmma or too little shared memory.
absl::StatusOr<TernaryMatmulPlan> PlanTernaryMatmulWith(
    const DeviceLimits& device, TernaryKernel kernel, int column_splits,
    int n_tokens, int n_out, int n_in);

}  // namespace tern

#endif  // KERNELS_CUDA_TERNARY_PLAN_H_
