#ifndef BENCH_GPU_DEVICE_PEAKS_H_
#define BENCH_GPU_DEVICE_PEAKS_H_

#include <algorithm>

#include "absl/status/statusor.h"
#include "kernels/cuda/device.h"

namespace tern {

// What a device can do at most, measured by code that does nothing else; what
// kernels are held against.
struct DevicePeaks {
  double copy_bytes_per_second;  // read and written, within the device
  double read_bytes_per_second;
  // int8, two for each product; of registers and shared memory.
  double mma_ops_per_second;    // by mma.m16n8k32
  double wgmma_ops_per_second;  // by wgmma.m64n128k32; 0 where there is none

  double ops_per_second() const {
    return std::max(mma_ops_per_second, wgmma_ops_per_second);
  }
};

// Takes 2 GiB of device memory and some tens of milliseconds.
absl::StatusOr<DevicePeaks> MeasureDevicePeaks(const DeviceInfo& device);

}  // namespace tern

#endif  // BENCH_GPU_DEVICE_PEAKS_H_
