#ifndef KERNELS_CUDA_CUDA_OPS_H_
#define KERNELS_CUDA_CUDA_OPS_H_

#include <memory>

#include "absl/status/statusor.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/device_ops.h"

namespace tern::cuda {

// Readies the current device, whose limits these are, and returns its
// operations on a stream, which must outlive them. Calls never block or
// allocate, and may be captured. `columns_max` is the widest input of a norm.
absl::StatusOr<std::unique_ptr<DeviceOps>> MakeCudaOps(
    const DeviceLimits& device, int columns_max, CudaStream stream);

}  // namespace tern::cuda

#endif  // KERNELS_CUDA_CUDA_OPS_H_
