#ifndef KERNELS_CUDA_CUDA_STATUS_CUH_
#define KERNELS_CUDA_CUDA_STATUS_CUH_

// For .cu files only.

#include <cuda_runtime.h>

#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace tern::cuda {

// OK, RESOURCE_EXHAUSTED when memory did not suffice, or INTERNAL; `what` was
// being done.
inline absl::Status CudaStatus(cudaError_t error, absl::string_view what) {
  if (error == cudaSuccess) return absl::OkStatus();
  const std::string message = absl::StrCat(what, ": ", cudaGetErrorName(error),
                                           ", ", cudaGetErrorString(error));
  if (error == cudaErrorMemoryAllocation) {
    return absl::ResourceExhaustedError(message);
  }
  return absl::InternalError(message);
}

}  // namespace tern::cuda

#endif  // KERNELS_CUDA_CUDA_STATUS_CUH_
