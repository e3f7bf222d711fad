#ifndef KERNELS_CUDA_SAMPLE_H_
#define KERNELS_CUDA_SAMPLE_H_

#include "absl/status/status.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/sample_args.h"

namespace tern::cuda {

// Enqueues SampleKernel for n_rows rows on `stream`. Never blocks or allocates.
// Errors of the kernel itself appear at a later synchronisation.
absl::Status LaunchSample(const SampleArgs& args, int n_rows,
                          CudaStream stream);

}  // namespace tern::cuda

#endif  // KERNELS_CUDA_SAMPLE_H_
