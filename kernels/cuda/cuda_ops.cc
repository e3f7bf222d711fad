#include "kernels/cuda/cuda_ops.h"

#include <memory>

#include "absl/status/status.h"
#include "kernels/cuda/attention.h"
#include "kernels/cuda/embed.h"
#include "kernels/cuda/head.h"
#include "kernels/cuda/normalise.h"
#include "kernels/cuda/rope.h"
#include "kernels/cuda/sample.h"
#include "kernels/cuda/ternary_matmul.h"
#include "util/status_macros.h"

namespace tern::cuda {
namespace {

class CudaOps : public DeviceOps {
 public:
  explicit CudaOps(CudaStream stream) : stream_(stream) {}

  absl::Status Embed(const EmbedArgs& args, int n_tokens) override {
    return LaunchEmbed(args, n_tokens, stream_);
  }
  absl::Status Normalise(const NormaliseArgs& args, int n_tokens) override {
    return LaunchNormalise(args, n_tokens, stream_);
  }
  absl::Status Multiply(const TernaryMatmulPlan& plan,
                        const TernaryMatmulArgs& args) override {
    return LaunchTernaryMatmul(plan, args, stream_);
  }
  absl::Status RotateAndStore(const RopeArgs& args, int n_tokens) override {
    return LaunchRope(args, n_tokens, stream_);
  }
  absl::Status Attend(const AttentionPlan& plan,
                      const AttentionBatch& batch) override {
    return LaunchAttention(plan, batch, stream_);
  }
  absl::Status Add(const AddArgs& args) override {
    return LaunchAdd(args, stream_);
  }
  absl::Status HeadInt8(const HeadArgs& args) override {
    return LaunchHeadInt8(args, stream_);
  }
  absl::Status Sample(const SampleArgs& args, int n_rows) override {
    return LaunchSample(args, n_rows, stream_);
  }

 private:
  const CudaStream stream_;
};

}  // namespace

absl::Status PrepareCudaOps(const DeviceLimits& device, int columns_max) {
  RETURN_IF_ERROR(PrepareTernaryMatmul());
  RETURN_IF_ERROR(PrepareNormalise(columns_max));
  return PrepareAttention(device.shared_bytes);
}

std::unique_ptr<DeviceOps> MakeCudaOps(CudaStream stream) {
  return std::make_unique<CudaOps>(stream);
}

}  // namespace tern::cuda
