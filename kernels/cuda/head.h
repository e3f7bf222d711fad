#ifndef KERNELS_CUDA_HEAD_H_
#define KERNELS_CUDA_HEAD_H_

#include "absl/status/status.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/head_args.h"

namespace tern::cuda {

// Enqueues the head on `stream`. Never blocks or allocates. Errors of the
// kernel itself appear at a later synchronisation.
absl::Status LaunchHeadInt8(const HeadArgs& args, CudaStream stream);

}  // namespace tern::cuda

#endif  // KERNELS_CUDA_HEAD_H_
