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

// Seconds of `rounds` rounds of a kernel that multiplies, on all
// multiprocessors.
template <class Kernel>
absl::StatusOr<double> TimeProducts(int blocks, int shared_bytes, int rounds) {
  // Data that is all zero would be multiplied faster than any real one.
  std::mt19937 rng(1);
  std::vector<uint32_t> operands(WgmmaPeakKernel::kSharedBytes / 4);
  for (uint32_t& word : operands) word = rng();
  ASSIGN_OR_RETURN(DeviceBuffer in, DeviceBuffer::Allocate(
                                        operands.size() * sizeof(operands[0])));
  ASSIGN_OR_RETURN(DeviceBuffer out, DeviceBuffer::Allocate(size_t{4} * blocks *
                                                            Kernel::kThreads));
  RETURN_IF_ERROR(in.CopyFromHost(operands.data(), in.bytes()));
  simt::LaunchShape shape;
  shape.grid_x = blocks;
  shape.threads = Kernel::kThreads;
  shape.shared_bytes = shared_bytes;
  const typename Kernel::Args args = {in.as<uint32_t>(), out.as<int32_t>(),
                                      rounds};
  return TimeGraph(
      [&](CudaStream stream) {
        return CudaStatus(simt::Launch<Kernel>(
                              shape, args, static_cast<cudaStream_t>(stream)),
                          "peak of products");
      },
      kReplays);
}

absl::Status MeasureProducts(const DeviceInfo& device, DevicePeaks* peaks) {
  constexpr int kRounds = 4096;
  const int mma_blocks =
      device.limits.multiprocessors * MmaPeakKernel::kBlocksPerSm;
  ASSIGN_OR_RETURN(const double mma_seconds,
                   TimeProducts<MmaPeakKernel>(mma_blocks, 0, kRounds));
  peaks->mma_ops_per_second =
      MmaPeakKernel::kOpsOfRound * mma_blocks * kRounds / mma_seconds;
  peaks->wgmma_ops_per_second = 0;
  if (!device.limits.wgmma) return absl::OkStatus();
  const int blocks =
      device.limits.multiprocessors * WgmmaPeakKernel::kBlocksPerSm;
  ASSIGN_OR_RETURN(const double seconds,
                   TimeProducts<WgmmaPeakKernel>(
                       blocks, WgmmaPeakKernel::kSharedBytes, kRounds));
  peaks->wgmma_ops_per_second =
      WgmmaPeakKernel::kOpsOfRound * blocks * kRounds / seconds;
  return absl::OkStatus();
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
  RETURN_IF_ERROR(MeasureProducts(device, &peaks));
  return peaks;
}

}  // namespace tern
