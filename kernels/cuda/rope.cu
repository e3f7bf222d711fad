#include <cuda_runtime.h>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/rope.h"
#include "kernels/cuda/rope_kernel.h"

namespace tern::cuda {

absl::Status LaunchRope(const RopeArgs& args, int n_tokens, CudaStream stream) {
  return CudaStatus(simt::Launch<RopeKernel>(RopeKernel::Shape(n_tokens), args,
                                             static_cast<cudaStream_t>(stream)),
                    "launch of rope");
}

}  // namespace tern::cuda
