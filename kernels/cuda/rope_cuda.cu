#include "kernels/cuda/cuda_status.cuh"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/rope_cuda.h"
#include "kernels/cuda/rope_kernel.h"

namespace tern::cuda {

absl::Status RotateAndStore(const RopeArgs& args, int n_tokens, Stream stream) {
  return CudaStatus(
      simt::Launch<RopeKernel>(RopeKernel::Shape(n_tokens), args, stream),
      "launch of rope");
}

}  // namespace tern::cuda
