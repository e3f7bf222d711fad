#include <cuda_runtime.h>

#include <random>
#include <vector>

#include "bench/gpu/device_peaks.h"
#include "bench/gpu/graph_timer.h"
#include "bench/gpu/peak_kernels.h"
#include "kernels/cuda/launch.h"
#include "util/status_macros.h"

namespace tern {
namespace {

constexpr size_t kBytes = size_t{1} << 30;
constexpr int kReplays = 9;

absl::StatusOr<double> MeasureMma(const DeviceInfo& device) {
  constexpr int kRounds = 4096;
  const int blocks =
      device.limits.multiprocessors * MmaPeakKernel::kBlocksPerSm;
  // Data that is all zero would be multiplied faster than any real one.
  std::mt19937 rng(1);
  std::vector<uint32_t> operands(6 * simt::kWarpSize);
  for (uint32_t& word : operands) word = rng();
  ASSIGN_OR_RETURN(DeviceBuffer in, DeviceBuffer::Allocate(
                                        operands.size() * sizeof(operands[0])));
  ASSIGN_OR_RETURN(
      DeviceBuffer out,
      DeviceBuffer::Allocate(size_t{4} * blocks * MmaPeakKernel::kThreads));
  RETURN_IF_ERROR(in.CopyFromHost(operands.data(), in.bytes()));
  simt::LaunchShape shape;
  shape.grid_x = blocks;
  shape.threads = MmaPeakKernel::kThreads;
  const MmaPeakKernel::Args args = {in.as<uint32_t>(), out.as<int32_t>(),
                                    kRounds};
  ASSIGN_OR_RETURN(
      const double seconds,
      TimeGraph(
          [&](CudaStream stream) {
            return CudaStatus(
                simt::Launch<MmaPeakKernel>(shape, args,
                                            static_cast<cudaStream_t>(stream)),
                "mma peak");
          },
          kReplays));
  const double warps =
      double{1} * blocks * MmaPeakKernel::kThreads / simt::kWarpSize;
  return warps * kRounds * MmaPeakKernel::kChains * 2 * 16 * 8 * 32 / seconds;
}

}  // namespace

absl::StatusOr<DevicePeaks> MeasureDevicePeaks(const DeviceInfo& device) {
  DevicePeaks peaks;
  ASSIGN_OR_RETURN(DeviceBuffer from, DeviceBuffer::Allocate(kBytes));
  ASSIGN_OR_RETURN(DeviceBuffer to, DeviceBuffer::Allocate(kBytes));
  RETURN_IF_ERROR(from.Fill(0x5a));
  ASSIGN_OR_RETURN(const double copy_seconds,
                   TimeGraph(
                       [&](CudaStream stream) {
                         return CudaStatus(
                             cudaMemcpyAsync(to.data(), from.data(), kBytes,
                                             cudaMemcpyDeviceToDevice,
                                             static_cast<cudaStream_t>(stream)),
                             "copy peak");
                       },
                       kReplays));
  peaks.copy_bytes_per_second = 2.0 * kBytes / copy_seconds;

  simt::LaunchShape shape;
  shape.grid_x = device.limits.multiprocessors * ReadPeakKernel::kBlocksPerSm;
  shape.threads = ReadPeakKernel::kThreads;
  const ReadPeakKernel::Args args = {from.as<simt::Words4>(),
                                     kBytes / sizeof(simt::Words4),
                                     to.as<uint32_t>()};
  ASSIGN_OR_RETURN(
      const double read_seconds,
      TimeGraph(
          [&](CudaStream stream) {
            return CudaStatus(
                simt::Launch<ReadPeakKernel>(shape, args,
                                             static_cast<cudaStream_t>(stream)),
                "read peak");
          },
          kReplays));
  peaks.read_bytes_per_second = kBytes / read_seconds;
  ASSIGN_OR_RETURN(peaks.mma_ops_per_second, MeasureMma(device));
  return peaks;
}

}  // namespace tern
