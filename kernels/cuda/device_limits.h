#ifndef KERNELS_CUDA_DEVICE_LIMITS_H_
#define KERNELS_CUDA_DEVICE_LIMITS_H_

namespace tern {

// What of a device the plans of kernels depend on.
struct DeviceLimits {
  int multiprocessors;  // 132 of an H200
  int shared_bytes;     // that a block may have: 227 KiB of an H200
  bool wgmma = false;   // Hopper's, and code for sm_90a in this program
};

}  // namespace tern

#endif  // KERNELS_CUDA_DEVICE_LIMITS_H_
