#include "coordinator/kept_kv.h"

#include <algorithm>
#include <iterator>
#include <utility>
#include <vector>

#include "util/logging.h"

namespace tern {
namespace {

bool IsSameRange(const StageRange& a, const StageRange& b) {
  return a.layer_begin == b.layer_begin && a.layer_end == b.layer_end;
}

// The stages of `kept` that a worker of the placement has, in the same place.
std::vector<bool> HeldBy(const KeptKv& kept, const Placement& placement,
                         absl::string_view numerics_id,
                         const KeptKvs::IncarnationOf& incarnation_of) {
  const size_t n_stages = placement.stages.size();
  if (kept.stages.size() != n_stages || kept.numerics_id != numerics_id ||
      kept.blocks.n_blocks() > placement.kv_block_count ||
      (kept.keeps_boundary && !placement.keeps_boundary)) {
    return {};
  }
  std::vector<bool> held(n_stages);
  for (size_t i = 0; i < n_stages; ++i) {
    const KeptKv::Stage& stage = kept.stages[i];
    const PlacedStage& placed = placement.stages[i];
    if (!IsSameRange(stage.range, placed.range)) return {};
    held[i] = stage.epoch > 0 && stage.worker_id == placed.worker_id &&
              stage.incarnation == incarnation_of(stage.worker_id);
  }
  return held;
}

}  // namespace

int KeptKv::n_held() const {
  return static_cast<int>(
      std::count_if(stages.begin(), stages.end(),
                    [](const Stage& stage) { return stage.epoch > 0; }));
}

std::optional<BlockManager> RecoverBlocks(KeptKv kept,
                                          absl::Span<const char> has_kept) {
  CHECK(has_kept.size() == kept.stages.size());
  if (std::count(has_kept.begin(), has_kept.end(), true) == 0) {
    return std::nullopt;
  }
  StageSpan lost;
  for (int i = 0; i < static_cast<int>(has_kept.size()); ++i) {
    if (has_kept[i]) continue;
    if (lost.empty()) lost.begin = i;
    lost.end = i + 1;
  }
  if (!lost.empty()) {
    if (!kept.keeps_boundary) lost.begin = 0;
    kept.blocks.Lose(lost);
  }
  return std::move(kept.blocks);
}

void KeptKvs::Put(KeptKv kept) {
  if (kept.n_held() == 0 || kept.blocks.n_cached() == 0) return;
  if (kept_.size() == kMax) kept_.pop_front();
  kept_.push_back(std::move(kept));
}

std::vector<KeptKv> KeptKvs::TakeAll() {
  std::vector<KeptKv> all(std::make_move_iterator(kept_.begin()),
                          std::make_move_iterator(kept_.end()));
  kept_.clear();
  return all;
}

std::optional<KeptKv> KeptKvs::Take(const Placement& placement,
                                    absl::string_view numerics_id,
                                    const IncarnationOf& incarnation_of) {
  auto best = kept_.end();
  std::vector<bool> best_held;
  int n_most = 0;
  for (auto it = kept_.begin(); it != kept_.end(); ++it) {
    std::vector<bool> held =
        HeldBy(*it, placement, numerics_id, incarnation_of);
    const int n = std::count(held.begin(), held.end(), true);
    // Of equals the latest, which holds more recent texts.
    if (n == 0 || n < n_most) continue;
    n_most = n;
    best = it;
    best_held = std::move(held);
  }
  std::optional<KeptKv> taken;
  if (best != kept_.end()) {
    taken = std::move(*best);
    kept_.erase(best);
    for (size_t i = 0; i < best_held.size(); ++i) {
      if (!best_held[i]) taken->stages[i].epoch = 0;
    }
  }
  for (KeptKv& kept : kept_) {
    for (KeptKv::Stage& stage : kept.stages) {
      for (const PlacedStage& placed : placement.stages) {
        if (stage.worker_id == placed.worker_id) stage.epoch = 0;
      }
    }
  }
  kept_.erase(
      std::remove_if(kept_.begin(), kept_.end(),
                     [](const KeptKv& kept) { return kept.n_held() == 0; }),
      kept_.end());
  return taken;
}

}  // namespace tern
