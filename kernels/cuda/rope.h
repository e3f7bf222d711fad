#ifndef KERNELS_CUDA_ROPE_H_
#define KERNELS_CUDA_ROPE_H_

#include "absl/status/status.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/rope_args.h"

namespace tern::cuda {

// Enqueues RopeKernel for n_tokens tokens on `stream`. Never blocks or
// allocates. Errors of the kernel itself appear at a later synchronisation.
absl::Status LaunchRope(const RopeArgs& args, int n_tokens, CudaStream stream);

}  // namespace tern::cuda

#endif  // KERNELS_CUDA_ROPE_H_
