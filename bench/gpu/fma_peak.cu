#include <cuda_runtime.h>

#include "bench/gpu/fma_peak.h"
#include "bench/gpu/fma_peak_kernel.h"
#include "bench/gpu/graph_timer.h"
#include "kernels/cuda/launch.h"
#include "util/status_macros.h"

namespace tern {

absl::StatusOr<double> MeasureFmaPeak(const DeviceInfo& device) {
  constexpr int kRounds = 16384;
  constexpr int kReplays = 9;
  simt::LaunchShape shape;
  shape.grid_x = device.limits.multiprocessors * FmaPeakKernel::kBlocksPerSm;
  shape.threads = FmaPeakKernel::kThreads;
  const double threads = double{1} * shape.grid_x * shape.threads;
  ASSIGN_OR_RETURN(
      DeviceBuffer sums,
      DeviceBuffer::Allocate(static_cast<size_t>(threads) * sizeof(float)));
  const FmaPeakKernel::Args args = {0.5f, sums.as<float>(), kRounds};
  ASSIGN_OR_RETURN(
      const double seconds,
      TimeGraph(
          [&](CudaStream stream) {
            return CudaStatus(
                simt::Launch<FmaPeakKernel>(shape, args,
                                            static_cast<cudaStream_t>(stream)),
                "fma peak");
          },
          kReplays));
  return threads * kRounds * FmaPeakKernel::kChains / seconds;
}

}  // namespace tern
