#include <cuda_runtime.h>

#include <cstddef>
#include <cstdlib>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/test_device.h"
#include "util/status_macros.h"

namespace tern::cuda {
namespace {

// The first GPU, with memory that moves to whoever touches it.
class CudaDevice : public TestDevice {
 public:
  CudaDevice(const DeviceLimits& limits, std::unique_ptr<DeviceOps> ops)
      : limits_(limits), ops_(std::move(ops)) {}
  ~CudaDevice() override {
    for (void* memory : owned_) cudaFree(memory);
  }

  DeviceLimits limits() const override { return limits_; }

  void* Allocate(size_t bytes, bool /*kernel_writes*/) override {
    void* memory = nullptr;
    if (cudaMallocManaged(&memory, bytes) != cudaSuccess) abort();
    owned_.push_back(memory);
    return memory;
  }

  absl::Status Embed(const EmbedArgs& args, int n_tokens) override {
    return Finish(ops_->Embed(args, n_tokens));
  }
  absl::Status Normalise(const NormaliseArgs& args, int n_tokens) override {
    return Finish(ops_->Normalise(args, n_tokens));
  }
  absl::Status Multiply(const TernaryMatmulPlan& plan,
                        const TernaryMatmulArgs& args) override {
    return Finish(ops_->Multiply(plan, args));
  }
  absl::Status RotateAndStore(const RopeArgs& args, int n_tokens) override {
    return Finish(ops_->RotateAndStore(args, n_tokens));
  }
  absl::Status Attend(const AttentionPlan& plan,
                      const AttentionBatch& batch) override {
    return Finish(ops_->Attend(plan, batch));
  }
  absl::Status Add(const AddArgs& args) override {
    return Finish(ops_->Add(args));
  }
  absl::Status HeadInt8(const HeadArgs& args) override {
    return Finish(ops_->HeadInt8(args));
  }
  absl::Status Sample(const SampleArgs& args, int n_rows) override {
    return Finish(ops_->Sample(args, n_rows));
  }

 private:
  static absl::Status Finish(const absl::Status& launched) {
    RETURN_IF_ERROR(launched);
    return SynchronizeDevice();
  }

  const DeviceLimits limits_;
  const std::unique_ptr<DeviceOps> ops_;
  std::vector<void*> owned_;
};

absl::StatusOr<std::unique_ptr<TestDevice>> OpenFirstDevice() {
  ASSIGN_OR_RETURN(const DeviceInfo device, GetDeviceInfo(0));
  RETURN_IF_ERROR(PrepareCudaOps(device.limits, kNormaliseColumnsMax));
  return std::unique_ptr<TestDevice>(
      std::make_unique<CudaDevice>(device.limits, MakeCudaOps(nullptr)));
}

}  // namespace

std::unique_ptr<TestDevice> TestDevice::Create(std::string* reason) {
  if (CudaDeviceCount() == 0) {
    *reason = "this machine has no CUDA device";
    return nullptr;
  }
  absl::StatusOr<std::unique_ptr<TestDevice>> device = OpenFirstDevice();
  if (device.ok()) return *std::move(device);
  *reason = std::string(device.status().message());
  return nullptr;
}

}  // namespace tern::cuda
