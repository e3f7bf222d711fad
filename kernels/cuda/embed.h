#ifndef KERNELS_CUDA_EMBED_H_
#define KERNELS_CUDA_EMBED_H_

#include "absl/status/status.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/embed_args.h"

namespace tern::cuda {

// Enqueue EmbedKernel for n_tokens tokens, and AddKernel, on `stream`. Never
// block or allocate. Errors of the kernels themselves appear at a later
// synchronisation.
absl::Status LaunchEmbed(const EmbedArgs& args, int n_tokens,
                         CudaStream stream);
absl::Status LaunchAdd(const AddArgs& args, CudaStream stream);

}  // namespace tern::cuda

#endif  // KERNELS_CUDA_EMBED_H_
