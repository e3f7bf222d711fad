#ifndef COORDINATOR_PLACEMENT_H_
#define COORDINATOR_PLACEMENT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "coordinator/cluster_view.h"
#include "model/model_config.h"
#include "model/stage_plan.h"

namespace tern {

struct PlacementOptions {
  int n_stages = 1;
  bool head_int8 = true;
  // Of the head as stored; counts unless `head_int8`.
  int64_t head_row_bytes = 0;
  int kv_block_size = 16;  // tokens
  // Tokens that the KV cache shall hold. 0 decides: `max_sequences` times the
  // context, of which at most kAutoContextMax counts, and as much of that as
  // fits the workers.
  int64_t kv_cache_tokens = 0;
  int max_sequences = 64;
};

// Longest context that an automatic KV cache makes room for in every sequence:
// few are longer, and those share the pool.
inline constexpr int kAutoContextMax = 8192;

// A stage and who holds it.
struct PlacedStage {
  std::string worker_id;
  std::string address;
  StageRange range;
};

// Where a pipeline runs.
struct Placement {
  std::vector<PlacedStage> stages;
  int kv_block_count = 0;
};

// Cuts the model into stages, by how the first candidate packs weights, and
// gives them to the first candidates, in their order, that have the memory:
// weights as they pack them, and the KV cache (with automatic size at least one
// context, but never more than a tenth of the memory is left to buffers). Pure.
//
// UNAVAILABLE          fewer candidates than stages
// FAILED_PRECONDITION  enough, but they lack memory; says who and how much
// INVALID_ARGUMENT     more stages than layers
absl::StatusOr<Placement> PlacePipeline(
    const ModelConfig& config, const PlacementOptions& options,
    absl::Span<const Worker* const> candidates);

}  // namespace tern

#endif  // COORDINATOR_PLACEMENT_H_
