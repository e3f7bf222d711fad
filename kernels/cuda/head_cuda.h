#ifndef KERNELS_CUDA_HEAD_CUDA_H_
#define KERNELS_CUDA_HEAD_CUDA_H_

#include "absl/status/status.h"
#include "kernels/cuda/head_args.h"
#include "kernels/cuda/stream.h"

namespace tern::cuda {

// Enqueues the head on `stream`. Never blocks or allocates. Errors of the
// kernel itself appear at a later synchronisation.
absl::Status HeadInt8(const HeadArgs& args, Stream stream);

}  // namespace tern::cuda

#endif  // KERNELS_CUDA_HEAD_CUDA_H_
