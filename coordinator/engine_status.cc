// What the engine tells of itself.

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "coordinator/cluster_view.h"
#include "coordinator/engine.h"
#include "coordinator/placement.h"
#include "util/logging.h"

namespace tern {

absl::Status Engine::WhyNotReady() const {
  const std::string prefix =
      absl::StrCat("no pipeline serves ", options_.model, " at the moment: ");
  if (!pipelines_.empty()) {
    std::string loading;
    for (const auto& [index, member] : pipelines_) {
      for (size_t i = 0; i < member.stages.size(); ++i) {
        absl::StrAppend(
            &loading, loading.empty() ? "" : ", ", "stage ", i, " on worker ",
            member.stages[i].placed.worker_id, " is loaded to ",
            static_cast<int>(member.stages[i].load_progress * 100), " %");
      }
    }
    return absl::UnavailableError(absl::StrCat(prefix, loading));
  }
  const std::vector<const Worker*> available =
      cluster_.Available(options_.model, !options_.content_id.empty());
  const size_t n_available = available.size();
  const size_t n_known =
      std::count_if(cluster_.workers().begin(), cluster_.workers().end(),
                    [](const auto& w) { return w.second.IsAvailable(); });
  const int n_needed = std::max(1, options_.placement.n_stages);
  std::string text =
      options_.placement.n_stages > 0 || n_available == 0
          ? absl::StrCat(prefix, n_available, " of ", n_needed,
                         n_needed == 1 ? " worker" : " workers",
                         " that it needs ", n_available == 1 ? "is" : "are",
                         " registered")
          : absl::StrCat(prefix,
                         CheckPlaceable(options_.config, options_.placement,
                                        Candidates(available))
                             .message());
  if (n_known > n_available) {
    absl::StrAppend(&text, " (", n_known - n_available,
                    " more have no file of the model, nor a cache to fetch it "
                    "into)");
  }
  if (!last_failure_.ok()) {
    absl::StrAppend(&text, "; the last one failed: ", last_failure_.message());
  }
  return absl::UnavailableError(text);
}

Engine::Snapshot Engine::MakeSnapshot() const {
  Snapshot snapshot;
  snapshot.phase = n_ready_ > 0          ? Phase::kReady
                   : !pipelines_.empty() ? Phase::kLoading
                                         : Phase::kWaiting;
  if (n_ready_ == 0) snapshot.phase_text = std::string(WhyNotReady().message());
  if (!cluster_.numerics_class().empty()) {
    snapshot.numerics_id = NumericsId();
  }
  for (const auto& [index, member] : pipelines_) {
    PipelineStatus status;
    status.id = member.id;
    status.epoch = member.epoch;
    status.phase = member.ready ? Phase::kReady : Phase::kLoading;
    status.stages = member.stages;
    status.kv_block_count = member.kv_block_count;
    status.keeps_boundary = member.keeps_boundary;
    if (const Lane* lane = scheduler_.lane(index)) {
      status.kv_block_in_use_count = lane->blocks().n_in_use();
      status.kv_block_cached_count = lane->blocks().n_cached();
      status.n_running = lane->n_running();
      status.counters = lane->counters();
    }
    snapshot.pipelines.push_back(std::move(status));
  }
  snapshot.n_waiting = scheduler_.n_waiting();
  snapshot.n_running = scheduler_.n_running();
  snapshot.counters = scheduler_.counters();
  for (const auto& [id, worker] : cluster_.workers()) {
    WorkerStatus view;
    view.worker = worker;
    view.silence = now_ - worker.last_heartbeat;
    for (const PipelineStatus& pipeline : snapshot.pipelines) {
      for (size_t i = 0; i < pipeline.stages.size(); ++i) {
        if (pipeline.stages[i].placed.worker_id != id) continue;
        view.pipeline_id = pipeline.id;
        view.stage = static_cast<int>(i);
        view.phase = pipeline.phase;
      }
    }
    snapshot.workers.push_back(std::move(view));
  }
  AddForecasts(&snapshot);
  return snapshot;
}

}  // namespace tern
