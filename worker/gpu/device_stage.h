#ifndef WORKER_GPU_DEVICE_STAGE_H_
#define WORKER_GPU_DEVICE_STAGE_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/cuda/attention_batch.h"
#include "kernels/cuda/attention_plan.h"
#include "kernels/cuda/device_limits.h"
#include "kernels/cuda/device_ops.h"
#include "kernels/cuda/rope_args.h"
#include "kernels/cuda/sample_args.h"
#include "kernels/cuda/simt.h"
#include "kernels/head.h"
#include "model/model_config.h"

namespace tern {

// Ternary matrices with one input, their rows after each other, on the device.
struct DeviceMatrix {
  const simt::Words4* tiles;  // kernels/cuda/ternary_tiles.h
  const float* scale;         // [n_out]
  int n_out;
};

struct DeviceLayer {
  const float* attn_norm;      // [hidden_size]
  const float* attn_sub_norm;  // [q_size], null without sub-norms
  const float* ffn_norm;       // [hidden_size]
  const float* ffn_sub_norm;   // [ffn_size], null without sub-norms
  DeviceMatrix qkv;
  DeviceMatrix output;
  DeviceMatrix gate_up;
  DeviceMatrix down;
  // Keys and values of the layer, in blocks as kernels/attention.h has them.
  uint16_t* k_pool;
  uint16_t* v_pool;
};

// A stage's weights and pools on a device. Borrowed.
struct DeviceModel {
  ModelConfig config;
  std::vector<DeviceLayer> layers;
  const float* cos;  // [context_length, head_dim / 2], of RopeTable
  const float* sin;
  // First stage: rows as in the file, of a type that EmbedArgs takes; else
  // null.
  const void* embedding = nullptr;
  DenseType embedding_type = DenseType::kF32;
  // Last stage, head mode int8: kernels/cuda/head_tiles.h; else null.
  const int8_t* head_tiles = nullptr;
  const float* head_row_scale = nullptr;  // [vocab_size]
  const float* output_norm = nullptr;     // [hidden_size]
};

// What a stage computes in, on the device.
struct DeviceRooms {
  // Allocates rooms for steps of up to `tokens_max` tokens of which up to
  // `logit_rows_max` want logits. `allocate` returns zeroed device memory,
  // 256-byte aligned.
  static absl::StatusOr<DeviceRooms> Make(
      const ModelConfig& config, int tokens_max, int logit_rows_max,
      size_t attention_partials_bytes,
      absl::FunctionRef<absl::StatusOr<void*>(size_t bytes)> allocate);

  float* hidden;          // [tokens, hidden_size]
  float* qkv;             // [tokens, q_size + 2 * kv_size]
  float* attended;        // [tokens, q_size]
  float* output;          // [tokens, hidden_size], to be added to hidden
  float* gate_up;         // [tokens, 2 * ffn_size]
  float* down;            // [tokens, hidden_size], to be added to hidden
  int8_t* q;              // [tokens, widest input]
  float* s;               // [tokens]
  int32_t* sum;           // [tokens]
  int32_t* is_finite;     // [logit rows]
  int32_t* partial_sums;  // of ternary multiplications; zero between them
  int32_t* arrivals;
  float* attention_partials;
  size_t attention_partials_bytes;
  float* logits;  // [logit rows, vocab_size]
};

struct AttentionRuns {
  const cuda::AttentionRun* runs = nullptr;  // [n_runs], on the device
  int n_runs = 0;
  int run_tokens_max = 0;   // tokens of the longest run
  int n_positions_max = 0;  // that any of their tokens sees
};

// One step, with what the device reads of it.
struct DeviceStep {
  int n_tokens;
  const int32_t* ids;              // [n_tokens]; read by the first stage
  const cuda::TokenPlace* places;  // [n_tokens]
  const int32_t* block_tables;     // of all sequences
  // Which runs the tokens make: those of sequences with one token, and those
  // of prompts. Each kind attends by a plan of its own, so that a long context
  // that goes on by a token is shared out, however many prompts come beside it.
  AttentionRuns decoding;
  AttentionRuns prompts;
  // Last stage: tokens after which logits are wanted, each once.
  const int32_t* logit_rows = nullptr;  // [n_logit_rows]
  int n_logit_rows = 0;
  // How each of them is sampled, and where the tokens go; or null.
  const cuda::SampleRow* sample_rows = nullptr;  // [n_logit_rows]
  int32_t* sampled = nullptr;                    // [n_logit_rows]
};

// The computation of a stage on a device: worker/stage.h in terms of DeviceOps,
// with the same bits. Not thread-safe.
class DeviceStage {
 public:
  // `ops` must outlive the stage.
  DeviceStage(const DeviceModel& model, const DeviceRooms& rooms,
              const DeviceLimits& limits, cuda::DeviceOps* ops);

  // INVALID_ARGUMENT, in words, when the kernels lack this shape.
  static absl::Status CheckShape(const ModelConfig& config);

  // Runs the layers on rooms.hidden: what the stage before gave (the first
  // stage overwrites it with embeddings), then the result. The last stage
  // leaves logits and samples instead, and the result in the rows of the logits
  // alone.
  absl::Status Forward(const DeviceStep& step);

 private:
  absl::Status RunLayer(const DeviceLayer& layer, bool is_first,
                        const DeviceStep& step);
  // The int8 form of N(x, norm), after y has been put to x as `input` says.
  absl::Status Normalise(cuda::NormaliseInput input, float* x, int64_t x_stride,
                         const float* y, int64_t y_stride, const float* norm,
                         int n, int n_tokens);
  // y[n_tokens, m.n_out] from what Normalise() left, of n_in columns.
  absl::Status Multiply(const DeviceMatrix& m, int n_in, int n_tokens,
                        float* y);
  absl::Status RotateAndStore(const DeviceLayer& layer, const DeviceStep& step);
  absl::Status Attend(const DeviceLayer& layer, const DeviceStep& step,
                      const AttentionRuns& runs);
  absl::Status Head(const DeviceStep& step);

  const DeviceModel model_;
  const DeviceRooms rooms_;
  const DeviceLimits limits_;
  const float attention_scale_;
  cuda::DeviceOps* const ops_;
};

}  // namespace tern

#endif  // WORKER_GPU_DEVICE_STAGE_H_
