#include "kernels/cuda/cuda_status.cuh"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/sample_cuda.h"
#include "kernels/cuda/sample_kernel.h"

namespace tern::cuda {

absl::Status Sample(const SampleArgs& args, int n_rows, Stream stream) {
  return CudaStatus(
      simt::Launch<SampleKernel>(SampleKernel::Shape(n_rows), args, stream),
      "launch of the sampler");
}

}  // namespace tern::cuda
