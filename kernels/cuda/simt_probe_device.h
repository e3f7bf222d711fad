#ifndef KERNELS_CUDA_SIMT_PROBE_DEVICE_H_
#define KERNELS_CUDA_SIMT_PROBE_DEVICE_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/cuda/simt_probe_kernel.h"

namespace tern::simt {

// As RunProbe() of simt_probe.h, on the current device.
absl::StatusOr<std::vector<ProbeResult>> RunProbeOnDevice(
    const std::vector<ProbeInput>& in, int32_t* total);

}  // namespace tern::simt

#endif  // KERNELS_CUDA_SIMT_PROBE_DEVICE_H_
