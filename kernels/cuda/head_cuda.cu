#include "kernels/cuda/cuda_status.cuh"
#include "kernels/cuda/head_cuda.h"
#include "kernels/cuda/head_dispatch.h"
#include "kernels/cuda/launch.h"

namespace tern::cuda {

absl::Status HeadInt8(const HeadArgs& args, Stream stream) {
  return WithHeadKernel(args, [&](auto kernel, const simt::LaunchShape& shape) {
    return CudaStatus(simt::Launch<decltype(kernel)>(shape, args, stream),
                      "launch of the head");
  });
}

}  // namespace tern::cuda
