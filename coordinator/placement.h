#ifndef COORDINATOR_PLACEMENT_H_
#define COORDINATOR_PLACEMENT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/optional.h"
#include "absl/types/span.h"
#include "coordinator/cluster_view.h"
#include "coordinator/stage_cut.h"
#include "model/model_config.h"
#include "model/stage_plan.h"

namespace tern {

struct PlacementOptions {
  // Stages of every pipeline; 0 for as many as give the most tokens per second.
  int n_stages = 1;
  // Where the model is cut, in ascending order: {24} makes stages of layers
  // [0, 24) and [24, n_layers). Empty: by what workers are measured to take.
  std::vector<int> layer_cuts;
  bool head_int8 = true;
  // Of the head as stored; counts unless `head_int8`.
  int64_t head_row_bytes = 0;
  int kv_block_size = 16;  // tokens
  // Tokens that the KV cache shall hold. 0 decides: `max_sequences` times the
  // context, of which at most kAutoContextMax counts, and as much of that as
  // fits the workers.
  int64_t kv_cache_tokens = 0;
  // The load that stages are cut for: so many sequences on each pipeline, with
  // `context_tokens` each (or the model's context, where that is shorter).
  int max_sequences = 64;
  int context_tokens = 512;
};

// Longest context that an automatic KV cache makes room for in every sequence:
// few are longer, and those share the pool.
inline constexpr int kAutoContextMax = 8192;

// Workers up to which every way to group them is looked at.
inline constexpr int kExactWorkersMax = 10;

// Who may get a stage.
struct PlacementCandidate {
  const Worker* worker = nullptr;
  // What it has in memory of the model.
  absl::optional<StageRange> holds;
};

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
  CutForecast forecast;
};

// Groups candidates into pipelines and cuts the model for each of them
// (coordinator/stage_cut.h), for the most tokens per second of all together
// under the stated load. Pure, and deterministic: what is equally fast goes to
// fewer workers, and then to those that come first.
//
// A pipeline's workers are of one numerics class. Weights count as each worker
// packs them, and a tenth of its memory is left to buffers. Times are those it
// has measured, times its slowdown; a worker that has none is taken for the
// median of the others, and when nobody has any, bytes decide.
//
// Up to kExactWorkersMax candidates of a class, no other grouping is faster.
// With more, none is that groups neighbours in the order of their speed and
// leaves neighbours out; that is the best where workers have enough memory
// for one stage each, and a good one where fast and slow differ much. 64
// workers and 128 layers take less than 0.1 s (bench/placement_bench).
//
// With layer_cuts, stages go to the first candidates in their order that have
// the memory, as often as there are enough: to those that hold their layers,
// else to those that hold no stage's.
//
// No worker gets what it has refused (Worker::refused) if that can be avoided.
struct Placements {
  std::vector<Placement> pipelines;
  // Pipelines that have a stage, or a part of one, that its worker has refused.
  int n_refused = 0;
  // When there are none, why not:
  // UNAVAILABLE          fewer candidates than stages
  // FAILED_PRECONDITION  enough, but they lack memory; says who and how much
  absl::Status why_none;
};
Placements PlacePipelines(const ModelConfig& config,
                          const PlacementOptions& options,
                          absl::Span<const PlacementCandidate> candidates);

// Whether the candidates can form a pipeline; cheap. With stages asked for,
// they are only counted.
bool CanPlace(const ModelConfig& config, const PlacementOptions& options,
              absl::Span<const PlacementCandidate> candidates);

// OK when they can, else `why_none`.
absl::Status CheckPlaceable(const ModelConfig& config,
                            const PlacementOptions& options,
                            absl::Span<const PlacementCandidate> candidates);

// Of a worker's memory, what weights and KV pool may take; the rest is for
// activations and messages.
inline int64_t UsableMemory(int64_t memory_bytes) {
  return memory_bytes / 10 * 9;
}

// Workers with what they hold.
std::vector<PlacementCandidate> Candidates(
    absl::Span<const Worker* const> workers);

// What stages are cut by: the model, the load, and what each of the candidates
// brings, as PlacePipelines() takes it.
CutTask CutTaskOf(const ModelConfig& config, const PlacementOptions& options);
std::vector<CutWorker> CutWorkersOf(
    const ModelConfig& config, const PlacementOptions& options,
    absl::Span<const PlacementCandidate> candidates);

// INVALID_ARGUMENT for options that no workers could satisfy: more stages than
// layers, cuts that are none.
absl::Status CheckPlacementOptions(const ModelConfig& config,
                                   const PlacementOptions& options);

}  // namespace tern

#endif  // COORDINATOR_PLACEMENT_H_
