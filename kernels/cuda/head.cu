#include <cuda_runtime.h>

#include "kernels/cuda/head.h"
#include "kernels/cuda/head_dispatch.h"
#include "kernels/cuda/launch.h"

namespace tern::cuda {

absl::Status LaunchHeadInt8(const HeadArgs& args, CudaStream stream) {
  return WithHeadKernel(args, [&](auto kernel, const simt::LaunchShape& shape) {
    return CudaStatus(simt::Launch<decltype(kernel)>(
                          shape, args, static_cast<cudaStream_t>(stream)),
                      "launch of the head");
  });
}

}  // namespace tern::cuda
