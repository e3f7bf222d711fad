#include <cuda_runtime.h>

#include <cstddef>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/cuda/attention.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/head.h"
#include "kernels/cuda/normalise.h"
#include "kernels/cuda/rope.h"
#include "kernels/cuda/sample.h"
#include "kernels/cuda/test_device.h"
#include "util/status_macros.h"

namespace tern::cuda {
namespace {

// The first GPU, with memory that moves to whoever touches it.
class CudaDevice : public TestDevice {
 public:
  ~CudaDevice() override {
    for (void* memory : owned_) cudaFree(memory);
  }

  void* Allocate(size_t bytes, bool /*kernel_writes*/) override {
    void* memory = nullptr;
    if (cudaMallocManaged(&memory, bytes) != cudaSuccess) abort();
    owned_.push_back(memory);
    return memory;
  }

  absl::Status Normalise(const NormaliseArgs& args, int n_tokens) override {
    RETURN_IF_ERROR(PrepareNormalise(args.n));
    RETURN_IF_ERROR(LaunchNormalise(args, n_tokens, nullptr));
    return Finish();
  }

  absl::Status RotateAndStore(const RopeArgs& args, int n_tokens) override {
    RETURN_IF_ERROR(LaunchRope(args, n_tokens, nullptr));
    return Finish();
  }

  absl::Status Attend(const AttentionPlan& plan,
                      const AttentionBatch& batch) override {
    RETURN_IF_ERROR(PrepareAttention(plan.attend.shared_bytes));
    RETURN_IF_ERROR(LaunchAttention(plan, batch, nullptr));
    return Finish();
  }

  absl::Status HeadInt8(const HeadArgs& args) override {
    RETURN_IF_ERROR(LaunchHeadInt8(args, nullptr));
    return Finish();
  }

  absl::Status Sample(const SampleArgs& args, int n_rows) override {
    RETURN_IF_ERROR(LaunchSample(args, n_rows, nullptr));
    return Finish();
  }

 private:
  static absl::Status Finish() { return SynchronizeDevice(); }

  std::vector<void*> owned_;
};

}  // namespace

std::unique_ptr<TestDevice> TestDevice::Create(std::string* reason) {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess || count == 0) {
    *reason = absl::StrCat("no GPU: ", cudaGetErrorString(error));
    return nullptr;
  }
  return std::make_unique<CudaDevice>();
}

}  // namespace tern::cuda
