#ifndef KERNELS_CUDA_TEST_DEVICE_H_
#define KERNELS_CUDA_TEST_DEVICE_H_

#include <cstddef>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "kernels/cuda/attention_batch.h"
#include "kernels/cuda/attention_plan.h"
#include "kernels/cuda/head_args.h"
#include "kernels/cuda/normalise_args.h"
#include "kernels/cuda/rope_args.h"
#include "kernels/cuda/sample_args.h"

namespace tern::cuda {

// Where a test runs kernels: the emulator or a GPU, whichever is linked. Calls
// return when the kernel is done. Not thread-safe.
class TestDevice {
 public:
  // Null, and why in `reason`, when this machine has no such device.
  static std::unique_ptr<TestDevice> Create(std::string* reason);

  virtual ~TestDevice() = default;

  // Memory that both sides read and write, for as long as the device exists;
  // 256-byte aligned. A kernel may touch exactly these bytes.
  virtual void* Allocate(size_t bytes, bool kernel_writes) = 0;

  virtual absl::Status Normalise(const NormaliseArgs& args, int n_tokens) = 0;
  virtual absl::Status RotateAndStore(const RopeArgs& args, int n_tokens) = 0;
  virtual absl::Status Attend(const AttentionPlan& plan,
                              const AttentionBatch& batch) = 0;
  virtual absl::Status HeadInt8(const HeadArgs& args) = 0;
  virtual absl::Status Sample(const SampleArgs& args, int n_rows) = 0;

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
