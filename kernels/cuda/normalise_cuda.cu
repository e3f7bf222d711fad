#include "kernels/cuda/cuda_status.cuh"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/normalise_cuda.h"
#include "kernels/cuda/normalise_kernel.h"
#include "kernels/cuda/normalise_shape.h"

namespace tern::cuda {

absl::Status PrepareNormalise(int n) {
  return CudaStatus(
      simt::AllowShared<NormaliseKernel>(NormaliseShape(n, 1).shared_bytes),
      "shared memory for norms");
}

absl::Status Normalise(const NormaliseArgs& args, int n_tokens, Stream stream) {
  return CudaStatus(simt::Launch<NormaliseKernel>(
                        NormaliseShape(args.n, n_tokens), args, stream),
                    "launch of a norm");
}

}  // namespace tern::cuda
