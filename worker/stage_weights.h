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

// Rows of a matrix of a group, packed in one piece.
struct MatrixSlice {
  int matrix;        // of the group
  int row_begin;     // of the matrix; a multiple of kPanelRows
  TernaryView view;  // the rows from there on; its row 0 is row_begin
};

// Matrices with one input, whose panels are shared out over the threads as one
// list: by packing and by computing alike, so that each thread finds what it
// reads in the memory that is nearest.
struct MatrixGroup {
  std::vector<int> n_out;  // rows of each matrix
  // All panels of the list in order: a slice for each matrix, cut where one
  // node of the pool's threads hands over to the next.
  std::vector<MatrixSlice> slices;

  int64_t panel_count() const;
  // Calls fn for the parts of slices that panels [begin, end) of the list are,
  // with rows that count from the slice's first.
  void ForSlices(int64_t begin, int64_t end,
                 absl::FunctionRef<void(const MatrixSlice& slice, int row_begin,
                                        int row_end)>
                     fn) const;
};

// The weights of one layer as the kernels want them.
struct LayerWeights {
  std::vector<float> attn_norm;      // [hidden_size]
  std::vector<float> attn_sub_norm;  // [q_size], empty without sub-norms
  std::vector<float> ffn_norm;       // [hidden_size]
  std::vector<float> ffn_sub_norm;   // [ffn_size], empty without sub-norms
  MatrixGroup qkv;                   // q, k and v
  MatrixGroup output;                // of the attention
  MatrixGroup gate_up;               // gate and up
  MatrixGroup down;
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

  // Bytes of packed weights, with what an int8 head keeps of each row (and of
  // the head in the file, when it is read there).
  int64_t bytes;

  // What the views look into.
  std::shared_ptr<const ModelSource> source;
  HugeBuffer packed;
  std::vector<float> head_row_scale;
  std::vector<float> head_lower_norm;
};

// Finds, checks and packs the weights of a stage on the threads of `pool`, and
// hands the pages of the files back as it goes on. What a thread of the pool
// reads in a ParallelFor over the panels of a group, or of the int8 head, lies
// in the memory of that thread's node; a head that is read from the file, and
// the embedding, lie where the system has cached the file.
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
