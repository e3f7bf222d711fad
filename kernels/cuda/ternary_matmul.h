#ifndef KERNELS_CUDA_TERNARY_MATMUL_H_
#define KERNELS_CUDA_TERNARY_MATMUL_H_

#include "absl/status/status.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/ternary_matmul_args.h"
#include "kernels/cuda/ternary_plan.h"

namespace tern {

// Readies the current device for plans: those that need more than 48 KiB of
// shared memory. Once for each device, before any capture of a graph.
absl::Status PrepareTernaryMatmul();

// Enqueues one multiplication on `stream`; never blocks or allocates, and may
// be captured. `args` has the plan's column_splits and as much room in
// partial_sums and arrivals as it asks for; two multiplications that may run at
// the same time have different ones. Errors inside the kernel appear when the
// stream is synchronised.
absl::Status LaunchTernaryMatmul(const TernaryMatmulPlan& plan,
                                 const TernaryMatmulArgs& args,
                                 CudaStream stream);

// The same, but kGemv* and kSkinny* begin to load weights while the kernels
// before them in the stream still run (on sm_90 and later).
absl::Status LaunchTernaryMatmulOverlapped(const TernaryMatmulPlan& plan,
                                           const TernaryMatmulArgs& args,
                                           CudaStream stream);

}  // namespace tern

#endif  // KERNELS_CUDA_TERNARY_MATMUL_H_
