#include <cuda_runtime.h>

#include "kernels/cuda/embed.h"
#include "kernels/cuda/embed_kernel.h"
#include "kernels/cuda/launch.h"

namespace tern::cuda {

absl::Status LaunchEmbed(const EmbedArgs& args, int n_tokens,
                         CudaStream stream) {
  return CudaStatus(
      simt::Launch<EmbedKernel>(EmbedKernel::Shape(n_tokens), args,
                                static_cast<cudaStream_t>(stream)),
      "launch of the embedding");
}

absl::Status LaunchAdd(const AddArgs& args, CudaStream stream) {
  return CudaStatus(simt::Launch<AddKernel>(AddKernel::Shape(args.n), args,
                                            static_cast<cudaStream_t>(stream)),
                    "launch of a sum");
}

}  // namespace tern::cuda
