#ifndef KERNELS_CUDA_NORMALISE_H_
#define KERNELS_CUDA_NORMALISE_H_

#include "absl/status/status.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/normalise_args.h"

namespace tern::cuda {

// Lets LaunchNormalise() have tokens of up to n columns on the current device.
// Once, before the first call; not while a graph is captured.
absl::Status PrepareNormalise(int n);

// Enqueues NormaliseKernel for n_tokens tokens on `stream`. Never blocks or
// allocates. Errors of the kernel itself appear at a later synchronisation.
absl::Status LaunchNormalise(const NormaliseArgs& args, int n_tokens,
                             CudaStream stream);

}  // namespace tern::cuda

#endif  // KERNELS_CUDA_NORMALISE_H_
