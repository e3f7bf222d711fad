#ifndef KERNELS_CUDA_DEVICE_H_
#define KERNELS_CUDA_DEVICE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "kernels/cuda/device_limits.h"

namespace tern {

// An ordered queue of work on a device: a cudaStream_t. Null is the default
// one.
using CudaStream = void*;

// What a CUDA call returned (a cudaError_t), as a status that names `what` was
// tried. OK for 0; RESOURCE_EXHAUSTED when memory is short; INTERNAL otherwise.
absl::Status CudaStatus(int error, absl::string_view what);

// Devices that this process can use; 0 where there is no driver.
int CudaDeviceCount();

struct DeviceInfo {
  std::string name;
  int compute_major;
  int compute_minor;
  int64_t memory_bytes;
  int64_t l2_bytes;
  DeviceLimits limits;
};

// Of a device below CudaDeviceCount().
absl::StatusOr<DeviceInfo> GetDeviceInfo(int device);

// Waits for all work of the current device, and returns what went wrong in it.
absl::Status SynchronizeDevice();

// Memory of the current device. Movable; freed with the object.
class DeviceBuffer {
 public:
  // RESOURCE_EXHAUSTED names the bytes when there is no room.
  static absl::StatusOr<DeviceBuffer> Allocate(size_t bytes);

  void* data() const { return data_.get(); }
  template <typename T>
  T* as() const {
    return static_cast<T*>(data_.get());
  }
  size_t bytes() const { return bytes_; }

  // Copies `bytes` at the beginning; blocks. REQUIRES: bytes <= this->bytes().
  absl::Status CopyFromHost(const void* from, size_t bytes);
  absl::Status CopyToHost(void* to, size_t bytes) const;
  // Sets every byte.
  absl::Status Fill(uint8_t byte);

 private:
  struct Free {
    void operator()(void* data) const;
  };
  DeviceBuffer(void* data, size_t bytes) : data_(data), bytes_(bytes) {}

  std::unique_ptr<void, Free> data_;
  size_t bytes_;
};

}  // namespace tern

#endif  // KERNELS_CUDA_DEVICE_H_
