#ifndef WORKER_STAGE_WEIGHTS_H_
#define WORKER_STAGE_WEIGHTS_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "kernels/head.h"
#include "kernels/ternary_layout.h"
#include "model/model_config.h"
#include "model/model_source.h"
#include "model/stage_plan.h"
#include "worker/huge_buffer.h"
#include "worker/thread_pool.h"

namespace tern {

// Which part of a model a stage holds, and in what form.
struct StageSpec {
  StageRange range;
  HeadMode head_mode;  // of the last stage
  // Changes size and speed, and no result.
  TernaryPacking packing = TernaryPacking::k2Bit;

  friend bool operator==(const StageSpec& a, const StageSpec& b) {
    return a.range.layer_begin == b.range.layer_begin &&
           a.range.layer_end == b.range.layer_end &&
           a.range.has_embedding == b.range.has_embedding &&
           a.range.has_head == b.range.has_head && a.head_mode == b.head_mode &&
           a.packing == b.packing;
  }
};

// The weights of one layer as the kernels want them.
struct LayerWeights {
  std::vector<float> attn_norm;      // [hidden_size]
  std::vector<float> attn_sub_norm;  // [q_size], empty without sub-norms
  std::vector<float> ffn_norm;       // [hidden_size]
  std::vector<float> ffn_sub_norm;   // [ffn_size], empty without sub-norms
  TernaryView q, k, v, o, gate, up, down;
};

// The weights of a stage. Immutable once loaded; safe to share.
struct StageWeights {
  ModelConfig config;
  StageSpec spec;
  std::vector<LayerWeights> layers;  // of the stage, in order

  // First stage: read row by row from the mapped file.
  DenseView embedding;

  // Last stage. One of the two views is set, as spec.head_mode says; the stored
  // one reads from the mapped file.
  std::vector<float> output_norm;  // [hidden_size]
  DenseView head_stored;
  Int8View head_int8;

  // Bytes of packed weights (and of the head in the file, when it is read
  // there).
  int64_t bytes;

  // What the views look into.
  std::shared_ptr<const ModelSource> source;
  HugeBuffer packed;
  std::vector<float> head_row_scale;
  std::vector<float> head_lower_norm;
};

// Finds, checks and packs the weights of a stage on the threads of `pool`, and
// hands the pages of the files back as it goes on.
//
// progress: called from this thread now and then, with the bytes packed so far
//           and those there will be.
// cancelled: asked now and then; once true, the result is CANCELLED.
//
// INVALID_ARGUMENT for a file that cannot be served, DATA_LOSS for weights that
// cannot be (a ternary code 3, a head or norm that is not finite), and
// RESOURCE_EXHAUSTED when the system refuses the memory; each names the tensor
// or the size.
absl::StatusOr<std::shared_ptr<const StageWeights>> LoadStageWeights(
    std::shared_ptr<const ModelSource> source, const StageSpec& spec,
    ThreadPool* pool,
    absl::FunctionRef<void(int64_t packed_bytes, int64_t total_bytes)> progress,
    absl::FunctionRef<bool()> cancelled);

}  // namespace tern

#endif  // WORKER_STAGE_WEIGHTS_H_
