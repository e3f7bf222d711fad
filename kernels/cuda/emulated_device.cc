#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "kernels/cuda/attention_batch.h"
#include "kernels/cuda/attention_kernel.h"
#include "kernels/cuda/attention_merge_kernel.h"
#include "kernels/cuda/attention_plan.h"
#include "kernels/cuda/device_limits.h"
#include "kernels/cuda/embed_args.h"
#include "kernels/cuda/embed_kernel.h"
#include "kernels/cuda/head_args.h"
#include "kernels/cuda/head_dispatch.h"
#include "kernels/cuda/launch_shape.h"
#include "kernels/cuda/normalise_args.h"
#include "kernels/cuda/normalise_kernel.h"
#include "kernels/cuda/normalise_shape.h"
#include "kernels/cuda/rope_args.h"
#include "kernels/cuda/rope_kernel.h"
#include "kernels/cuda/sample_args.h"
#include "kernels/cuda/sample_kernel.h"
#include "kernels/cuda/simt_emulator.h"
#include "kernels/cuda/ternary_matmul_args.h"
#include "kernels/cuda/ternary_plan.h"
#include "kernels/cuda/ternary_testing.h"
#include "kernels/cuda/test_device.h"
#include "util/logging.h"
#include "util/status_macros.h"

namespace tern::cuda {
namespace {

class EmulatedDevice : public TestDevice {
 public:
  // Of a Hopper: the emulator has every instruction.
  DeviceLimits limits() const override { return {132, 227 << 10, true}; }

  void* Allocate(size_t bytes, bool kernel_writes) override {
    void* memory = nullptr;
    CHECK(posix_memalign(&memory, 256, bytes) == 0);
    owned_.emplace_back(memory, &free);
    auto* const begin = static_cast<uint8_t*>(memory);
    if (kernel_writes) {
      emulator_.AllowWrite(begin, bytes);
    } else {
      emulator_.AllowRead(begin, bytes);
    }
    return memory;
  }

  absl::Status Embed(const EmbedArgs& args, int n_tokens) override {
    return emulator_.Run<EmbedKernel>(EmbedKernel::Shape(n_tokens), args);
  }

  absl::Status Normalise(const NormaliseArgs& args, int n_tokens) override {
    return emulator_.Run<NormaliseKernel>(NormaliseShape(args.n, n_tokens),
                                          args);
  }

  absl::Status Multiply(const TernaryMatmulPlan& plan,
                        const TernaryMatmulArgs& args) override {
    return EmulateTernaryMatmul(plan, args, &emulator_);
  }

  absl::Status Add(const AddArgs& args) override {
    return emulator_.Run<AddKernel>(AddKernel::Shape(args.n), args);
  }

  absl::Status RotateAndStore(const RopeArgs& args, int n_tokens) override {
    return emulator_.Run<RopeKernel>(RopeKernel::Shape(n_tokens), args);
  }

  absl::Status Attend(const AttentionPlan& plan,
                      const AttentionBatch& batch) override {
    RETURN_IF_ERROR(RunTiles(plan, batch));
    if (!plan.splits) return absl::OkStatus();
    return emulator_.Run<AttentionMergeKernel>(plan.merge, batch);
  }

  absl::Status HeadInt8(const HeadArgs& args) override {
    const int64_t conflicts = emulator_.bank_conflicts();
    RETURN_IF_ERROR(
        WithHeadKernel(args, [&](auto kernel, const simt::LaunchShape& shape) {
          return emulator_.Run<decltype(kernel)>(shape, args);
        }));
    if (emulator_.bank_conflicts() == conflicts) return absl::OkStatus();
    return absl::InternalError("tokens of the head lie in the same banks");
  }

  absl::Status Sample(const SampleArgs& args, int n_rows) override {
    return emulator_.Run<SampleKernel>(SampleKernel::Shape(n_rows), args);
  }

 private:
  template <int kTileRows>
  absl::Status RunTile(const AttentionPlan& plan, const AttentionBatch& batch) {
    return emulator_.Run<typename AttentionTile<kTileRows>::Kernel>(plan.attend,
                                                                    batch);
  }
  absl::Status RunTiles(const AttentionPlan& plan,
                        const AttentionBatch& batch) {
    switch (plan.tile_rows) {
      case 1:
        return RunTile<1>(plan, batch);
      case 2:
        return RunTile<2>(plan, batch);
      case 4:
        return RunTile<4>(plan, batch);
      case 8:
        return RunTile<8>(plan, batch);
      default:
        return RunTile<16>(plan, batch);
    }
  }

  simt::Emulator emulator_;
  std::vector<std::unique_ptr<void, void (*)(void*)>> owned_;
};

}  // namespace

std::unique_ptr<TestDevice> TestDevice::Create(std::string*) {
  return std::make_unique<EmulatedDevice>();
}

}  // namespace tern::cuda
