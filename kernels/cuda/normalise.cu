#include <cuda_runtime.h>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/normalise.h"
#include "kernels/cuda/normalise_kernel.h"
#include "kernels/cuda/normalise_shape.h"

namespace tern::cuda {

absl::Status PrepareNormalise(int n) {
  return CudaStatus(
      simt::AllowShared<NormaliseKernel>(NormaliseShape(n, 1).shared_bytes),
      "shared memory for norms");
}

absl::Status LaunchNormalise(const NormaliseArgs& args, int n_tokens,
                             CudaStream stream) {
  return CudaStatus(
      simt::Launch<NormaliseKernel>(NormaliseShape(args.n, n_tokens), args,
                                    static_cast<cudaStream_t>(stream)),
      "launch of a norm");
}

}  // namespace tern::cuda
