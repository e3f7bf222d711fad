#ifndef KERNELS_CUDA_NORMALISE_CUDA_H_
#define KERNELS_CUDA_NORMALISE_CUDA_H_

#include "absl/status/status.h"
#include "kernels/cuda/normalise_args.h"
#include "kernels/cuda/stream.h"

namespace tern::cuda {

// Lets Normalise() have tokens of up to n columns on the current device. Once,
// before the first call; not while a graph is captured.
absl::Status PrepareNormalise(int n);

// Enqueues NormaliseKernel for n_tokens tokens on `stream`. Never blocks or
// allocates. Errors of the kernel itself appear at a later synchronisation.
absl::Status Normalise(const NormaliseArgs& args, int n_tokens, Stream stream);

}  // namespace tern::cuda

#endif  // KERNELS_CUDA_NORMALISE_CUDA_H_
