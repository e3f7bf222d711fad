#ifndef KERNELS_CUDA_DEVICE_OPS_H_
#define KERNELS_CUDA_DEVICE_OPS_H_

#include "absl/status/status.h"
#include "kernels/cuda/attention_batch.h"
#include "kernels/cuda/attention_plan.h"
#include "kernels/cuda/embed_args.h"
#include "kernels/cuda/head_args.h"
#include "kernels/cuda/normalise_args.h"
#include "kernels/cuda/rope_args.h"
#include "kernels/cuda/sample_args.h"
#include "kernels/cuda/ternary_matmul_args.h"
#include "kernels/cuda/ternary_plan.h"

namespace tern::cuda {

// All operations of a stage on a device, one after the other: each sees what
// those before it wrote. On a GPU a call enqueues and returns (CudaOps), in
// tests the emulator runs it at once. Not thread-safe.
class DeviceOps {
 public:
  virtual ~DeviceOps() = default;

  virtual absl::Status Embed(const EmbedArgs& args, int n_tokens) = 0;
  virtual absl::Status Normalise(const NormaliseArgs& args, int n_tokens) = 0;
  virtual absl::Status Multiply(const TernaryMatmulPlan& plan,
                                const TernaryMatmulArgs& args) = 0;
  virtual absl::Status RotateAndStore(const RopeArgs& args, int n_tokens) = 0;
  virtual absl::Status Attend(const AttentionPlan& plan,
                              const AttentionBatch& batch) = 0;
  virtual absl::Status Add(const AddArgs& args) = 0;
  virtual absl::Status HeadInt8(const HeadArgs& args) = 0;
  virtual absl::Status Sample(const SampleArgs& args, int n_rows) = 0;
};

}  // namespace tern::cuda

#endif  // KERNELS_CUDA_DEVICE_OPS_H_
