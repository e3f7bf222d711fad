#ifndef BENCH_GPU_FMA_PEAK_H_
#define BENCH_GPU_FMA_PEAK_H_

#include "absl/status/statusor.h"
#include "kernels/cuda/device.h"

namespace tern {

// Products that a device adds in float32 each second, at most.
absl::StatusOr<double> MeasureFmaPeak(const DeviceInfo& device);

}  // namespace tern

#endif  // BENCH_GPU_FMA_PEAK_H_
