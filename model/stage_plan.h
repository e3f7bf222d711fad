#ifndef MODEL_STAGE_PLAN_H_
#define MODEL_STAGE_PLAN_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "model/model_config.h"

namespace tern {

// The layers of one pipeline stage.
struct StageRange {
  int layer_begin;
  int layer_end;       // one past the last
  bool has_embedding;  // first stage
  bool has_head;       // last stage
};

// How a worker packs ternary matrices: panels of 32 rows, in blocks of
// `columns` columns, which are filled up, and `bytes` bytes
// (docs/ternary_layout.md). By default two bits a weight.
struct PackedBlocks {
  int columns = 16;
  int bytes = 128;
};

// Bytes that a stage keeps and moves. Head bytes depend on `head_int8`: one
// byte an element and eight a row, the rows in whole panels of 16, else
// `head_row_bytes` a row, as the file stores it.
struct StageCost {
  int64_t weight_bytes;    // packed ternary layers, norms, head
  int64_t kv_block_bytes;  // one KV block of all the stage's layers
};

// Bytes of one layer's packed ternary matrices.
int64_t LayerBytes(const ModelConfig& config, const PackedBlocks& blocks = {});
// Bytes of the head in memory.
int64_t HeadBytes(const ModelConfig& config, bool head_int8,
                  int64_t head_row_bytes);
StageCost CostOf(const ModelConfig& config, const StageRange& stage,
                 bool head_int8, int64_t head_row_bytes, int kv_block_size,
                 const PackedBlocks& blocks = {});

// Bytes of what a stage sends to the next one for the tokens of a KV block.
int64_t BoundaryBlockBytes(const ModelConfig& config, int kv_block_size);

// Cuts a model into `n_stages` contiguous stages so that the largest number of
// weight bytes read per decoded token by one stage is as small as possible; the
// head counts, the embedding (one row) does not. Among equal cuts, the one
// whose earlier stages are larger. Pure.
//
// INVALID_ARGUMENT unless 1 <= n_stages <= config.n_layers.
absl::StatusOr<std::vector<StageRange>> PlanStages(
    const ModelConfig& config, int n_stages, bool head_int8,
    int64_t head_row_bytes, const PackedBlocks& blocks = {});

}  // namespace tern

#endif  // MODEL_STAGE_PLAN_H_
