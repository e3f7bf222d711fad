#include <cuda_runtime.h>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "kernels/cuda/device.h"

namespace tern {

absl::Status CudaStatus(int error, absl::string_view what) {
  if (error == cudaSuccess) return absl::OkStatus();
  const auto code = static_cast<cudaError_t>(error);
  const std::string message = absl::StrCat(what, ": ", cudaGetErrorName(code),
                                           ", ", cudaGetErrorString(code));
  return code == cudaErrorMemoryAllocation
             ? absl::ResourceExhaustedError(message)
             : absl::InternalError(message);
}

int CudaDeviceCount() {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess ? count : 0;
}

absl::StatusOr<DeviceInfo> GetDeviceInfo(int device) {
  cudaDeviceProp properties;
  const absl::Status status =
      CudaStatus(cudaGetDeviceProperties(&properties, device),
                 absl::StrCat("properties of device ", device));
  if (!status.ok()) return status;
  DeviceInfo info;
  info.name = properties.name;
  info.compute_major = properties.major;
  info.compute_minor = properties.minor;
  info.memory_bytes = static_cast<int64_t>(properties.totalGlobalMem);
  info.l2_bytes = properties.l2CacheSize;
  info.limits.multiprocessors = properties.multiProcessorCount;
  info.limits.shared_bytes =
      static_cast<int>(properties.sharedMemPerBlockOptin);
  info.limits.wgmma = properties.major == 9;
  return info;
}

absl::Status SynchronizeDevice() {
  return CudaStatus(cudaDeviceSynchronize(), "work of the device");
}

absl::StatusOr<DeviceBuffer> DeviceBuffer::Allocate(size_t bytes) {
  void* data = nullptr;
  // An empty buffer has an address all the same.
  const absl::Status status =
      CudaStatus(cudaMalloc(&data, bytes == 0 ? 1 : bytes),
                 absl::StrCat(bytes, " bytes of device memory"));
  if (!status.ok()) {
    cudaGetLastError();  // is not the next call's
    return status;
  }
  return DeviceBuffer(data, bytes);
}

void DeviceBuffer::Free::operator()(void* data) const { cudaFree(data); }

absl::Status DeviceBuffer::CopyFromHost(const void* from, size_t bytes) {
  return CudaStatus(
      cudaMemcpy(data_.get(), from, bytes, cudaMemcpyHostToDevice),
      "copy to the device");
}

absl::Status DeviceBuffer::CopyToHost(void* to, size_t bytes) const {
  return CudaStatus(cudaMemcpy(to, data_.get(), bytes, cudaMemcpyDeviceToHost),
                    "copy from the device");
}

absl::Status DeviceBuffer::Fill(uint8_t byte) {
  return CudaStatus(cudaMemset(data_.get(), byte, bytes_),
                    "fill of device memory");
}

}  // namespace tern
