#include <cuda_runtime.h>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/sample.h"
#include "kernels/cuda/sample_kernel.h"

namespace tern::cuda {

absl::Status LaunchSample(const SampleArgs& args, int n_rows,
                          CudaStream stream) {
  return CudaStatus(
      simt::Launch<SampleKernel>(SampleKernel::Shape(n_rows), args,
                                 static_cast<cudaStream_t>(stream)),
      "launch of the sampler");
}

}  // namespace tern::cuda
