#ifndef KERNELS_CUDA_TEST_DEVICE_H_
#define KERNELS_CUDA_TEST_DEVICE_H_

#include <cstddef>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "kernels/cuda/device_limits.h"
#include "kernels/cuda/device_ops.h"

namespace tern::cuda {

// Where a test runs kernels: the emulator or a GPU, whichever is linked. Calls
// return when the kernel is done. Not thread-safe.
class TestDevice : public DeviceOps {
 public:
  // Null, and why in `reason`, when this machine has no such device.
  static std::unique_ptr<TestDevice> Create(std::string* reason);

  virtual DeviceLimits limits() const = 0;

  // Memory that both sides read and write, for as long as the device exists;
  // 256-byte aligned. A kernel may touch exactly these bytes.
  virtual void* Allocate(size_t bytes, bool kernel_writes) = 0;

  // A copy of `values` that kernels read.
  template <typename T>
  const T* Input(const std::vector<T>& values) {
    return static_cast<const T*>(Copy(values, false));
  }
  // One that they read and write.
  template <typename T>
  T* InOut(const std::vector<T>& values) {
    return static_cast<T*>(Copy(values, true));
  }

 private:
  template <typename T>
  void* Copy(const std::vector<T>& values, bool kernel_writes) {
    void* const copy = Allocate(values.size() * sizeof(T), kernel_writes);
    std::memcpy(copy, values.data(), values.size() * sizeof(T));
    return copy;
  }
};

}  // namespace tern::cuda

#endif  // KERNELS_CUDA_TEST_DEVICE_H_
