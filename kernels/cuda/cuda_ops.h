#ifndef KERNELS_CUDA_CUDA_OPS_H_
#define KERNELS_CUDA_CUDA_OPS_H_

#include <memory>

#include "absl/status/status.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/device_ops.h"

namespace tern::cuda {

// Readies the current device, whose limits these are, for all operations.
// Once, and not while a graph is captured. `columns_max` is the widest input of
// a norm.
absl::Status PrepareCudaOps(const DeviceLimits& device, int columns_max);

// The operations on a stream, which must outlive them. Calls never block or
// allocate, and may be captured.
std::unique_ptr<DeviceOps> MakeCudaOps(CudaStream stream);

}  // namespace tern::cuda

#endif  // KERNELS_CUDA_CUDA_OPS_H_
