#include <cuda_runtime.h>

#include "kernels/cuda/device.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/simt_probe_device.h"
#include "util/status_macros.h"

namespace tern::simt {

absl::StatusOr<std::vector<ProbeResult>> RunProbeOnDevice(
    const std::vector<ProbeInput>& in, int32_t* total) {
  ASSIGN_OR_RETURN(DeviceBuffer inputs,
                   DeviceBuffer::Allocate(in.size() * sizeof(ProbeInput)));
  ASSIGN_OR_RETURN(DeviceBuffer outputs,
                   DeviceBuffer::Allocate(in.size() * sizeof(ProbeResult)));
  ASSIGN_OR_RETURN(DeviceBuffer sum, DeviceBuffer::Allocate(sizeof(*total)));
  RETURN_IF_ERROR(inputs.CopyFromHost(in.data(), inputs.bytes()));
  RETURN_IF_ERROR(outputs.Fill(0xff));
  RETURN_IF_ERROR(sum.Fill(0));
  LaunchShape shape;
  shape.grid_x = static_cast<int>(in.size()) / ProbeKernel::kThreads;
  shape.threads = ProbeKernel::kThreads;
  shape.shared_bytes = ProbeKernel::kSharedBytes;
  RETURN_IF_ERROR(CudaStatus(
      Launch<ProbeKernel>(shape,
                          {inputs.as<ProbeInput>(), outputs.as<ProbeResult>(),
                           sum.as<int32_t>()},
                          nullptr),
      "probe"));
  RETURN_IF_ERROR(SynchronizeDevice());
  std::vector<ProbeResult> out(in.size());
  RETURN_IF_ERROR(outputs.CopyToHost(out.data(), outputs.bytes()));
  RETURN_IF_ERROR(sum.CopyToHost(total, sizeof(*total)));
  return out;
}

}  // namespace tern::simt
