#include "coordinator/placement.h"

#include <algorithm>
#include <limits>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "util/status_macros.h"

namespace tern {
namespace {

// Of a worker's memory, what weights and KV pool may take; the rest is for
// activations and messages.
int64_t Usable(const Worker& worker) {
  return worker.registration.memory_bytes / 10 * 9;
}

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace

absl::StatusOr<Placement> PlacePipeline(
    const ModelConfig& config, const PlacementOptions& options,
    absl::Span<const Worker* const> candidates) {
  // Mostly all workers pack alike.
  const PackedBlocks blocks = candidates.empty()
                                  ? PackedBlocks()
                                  : candidates[0]->registration.packed_blocks;
  ASSIGN_OR_RETURN(const std::vector<StageRange> ranges,
                   PlanStages(config, options.n_stages, options.head_int8,
                              options.head_row_bytes, blocks));
  if (candidates.size() < ranges.size()) {
    return absl::UnavailableError(
        absl::StrCat(candidates.size(), " of ", ranges.size(),
                     " workers that a pipeline needs are there"));
  }

  const int64_t context = CeilDiv(config.context_length, options.kv_block_size);
  const int64_t wanted =
      options.kv_cache_tokens > 0
          ? CeilDiv(options.kv_cache_tokens, options.kv_block_size)
          : std::max(context, CeilDiv(int64_t{options.max_sequences} *
                                          std::min(config.context_length,
                                                   kAutoContextMax),
                                      options.kv_block_size));
  const int64_t needed = options.kv_cache_tokens > 0 ? wanted : context;
  int64_t n_blocks = std::min<int64_t>(wanted, std::numeric_limits<int>::max());

  Placement placement;
  std::string last_refusal;
  size_t next = 0;
  for (const StageRange& range : ranges) {
    for (; next < candidates.size(); ++next) {
      const Worker& worker = *candidates[next];
      const StageCost cost =
          CostOf(config, range, options.head_int8, options.head_row_bytes,
                 options.kv_block_size, worker.registration.packed_blocks);
      const int64_t left = Usable(worker) - cost.weight_bytes;
      if (left >= needed * cost.kv_block_bytes) {
        n_blocks = std::min(n_blocks, left / cost.kv_block_bytes);
        break;
      }
      last_refusal = absl::StrCat(
          "worker ", worker.registration.worker_id, " offers ",
          Usable(worker) >> 20, " MiB; layers [", range.layer_begin, ", ",
          range.layer_end, ") take ", cost.weight_bytes >> 20,
          " MiB and a KV cache of ", needed * options.kv_block_size, " tokens ",
          (needed * cost.kv_block_bytes) >> 20,
          " MiB: use more stages, a smaller --kv_cache_tokens, or more memory");
    }
    if (next == candidates.size()) {
      return absl::FailedPreconditionError(last_refusal);
    }
    const WorkerRegistration& chosen = candidates[next++]->registration;
    placement.stages.push_back({chosen.worker_id, chosen.address, range});
  }
  placement.kv_block_count = static_cast<int>(n_blocks);
  return placement;
}

}  // namespace tern
