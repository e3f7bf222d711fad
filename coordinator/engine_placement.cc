// What the engine does about cuts that have become bad ones, and what it says
// of all of them.

#include <algorithm>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "coordinator/cluster_view.h"
#include "coordinator/engine.h"
#include "coordinator/placement.h"
#include "coordinator/recut.h"
#include "coordinator/refused_stage.h"
#include "coordinator/stage_cut.h"
#include "model/stage_plan.h"
#include "util/logging.h"

namespace tern {
namespace {

// Speeds change slowly, and looking takes up to some milliseconds.
constexpr absl::Duration kRecutLook = absl::Seconds(1);
// What lasts as long as this is no passing disturbance.
constexpr int kRecutLooks = 5;

}  // namespace

std::vector<PlacementCandidate> Engine::CandidatesOf(
    const Member& member) const {
  std::vector<PlacementCandidate> candidates;
  for (const StageStatus& stage : member.stages) {
    const Worker* worker = cluster_.Find(stage.placed.worker_id);
    if (worker == nullptr) return {};
    candidates.push_back({worker, stage.placed.range});
  }
  return candidates;
}

RecutForecast Engine::ForecastRecutOf(int index, const Member& member) const {
  const std::vector<PlacementCandidate> workers = CandidatesOf(member);
  if (workers.empty()) return {};
  std::vector<StageRange> ranges;
  for (const StageStatus& stage : member.stages) {
    ranges.push_back(stage.placed.range);
  }
  RunningPipeline pipeline = {workers, ranges, member.kv_block_count};
  if (const Lane* lane = scheduler_.lane(index)) {
    pipeline.n_tokens =
        int64_t{lane->blocks().n_in_use()} * options_.placement.kv_block_size;
  }
  return ForecastRecut(options_.config, options_.placement, pipeline,
                       Candidates(FreeWorkers()));
}

void Engine::RecutPipelines() {
  const absl::Duration interval = options_.recut.interval;
  if (interval <= absl::ZeroDuration() || now_ < recut_look_at_) return;
  recut_look_at_ = now_ + kRecutLook;
  if (now_ - last_recut_ < interval) return;
  // One at a time: while one loads the others hold up.
  for (const auto& [index, member] : pipelines_) {
    if (!member.ready) return;
  }
  for (auto& [index, member] : pipelines_) {
    if (now_ - member.ready_since < interval || IsDraining(member)) continue;
    const RecutForecast forecast = ForecastRecutOf(index, member);
    const bool pays = RecutPays(options_.recut, forecast);
    member.n_recut_looks = pays ? member.n_recut_looks + 1 : 0;
    if (member.n_recut_looks < kRecutLooks) continue;
    LOG(INFO) << "event=pipeline_recut pipeline=" << member.id
              << " epoch=" << member.epoch
              << " tokens_per_second_now=" << forecast.rate_now
              << " tokens_per_second_then=" << forecast.rate_then
              << " outage=" << forecast.outage;
    last_recut_ = now_;
    LosePipeline(index, absl::UnavailableError("it is cut anew"));
    return;
  }
}

void Engine::AddForecasts(Snapshot* snapshot) const {
  const CutTask task = CutTaskOf(options_.config, options_.placement);
  snapshot->max_sequences = task.n_sequences;
  snapshot->context_tokens = task.context_tokens;
  auto status = snapshot->pipelines.begin();
  for (const auto& [index, member] : pipelines_) {
    PipelineStatus& to = *status++;
    const std::vector<PlacementCandidate> candidates = CandidatesOf(member);
    if (candidates.empty()) continue;
    const std::vector<CutWorker> workers =
        CutWorkersOf(options_.config, options_.placement, candidates);
    std::vector<CutStage> stages;
    int64_t least = -1;
    for (const StageStatus& stage : member.stages) {
      const int i = static_cast<int>(stages.size());
      stages.push_back(
          {i, stage.placed.range.layer_begin, stage.placed.range.layer_end});
      CutTask unlimited = task;
      unlimited.kv_blocks_most = std::numeric_limits<int>::max();
      const int64_t n_blocks =
          KvBlocksThatFit(unlimited, workers, {stages.back()});
      if (least < 0 || n_blocks < least) {
        least = n_blocks;
        to.fullest_stage = i;
      }
    }
    to.forecast = ForecastCut(task, workers, stages, member.kv_block_count);
    to.recut_gain = ForecastRecutOf(index, member).gain();
  }
  const std::vector<const Worker*> free = FreeWorkers();
  const absl::Status why =
      CheckPlaceable(options_.config, options_.placement, Candidates(free));
  for (WorkerStatus& worker : snapshot->workers) {
    const bool is_free =
        std::any_of(free.begin(), free.end(), [&](const Worker* each) {
          return each->registration.worker_id ==
                 worker.worker.registration.worker_id;
        });
    if (is_free) {
      worker.why_idle = std::string(
          why.ok() ? "a pipeline is about to be formed" : why.message());
      if (!last_failure_.ok() && why.ok()) {
        absl::StrAppend(&worker.why_idle,
                        "; the last one failed: ", last_failure_.message());
      }
      if (!worker.worker.refused.empty()) {
        absl::StrAppend(&worker.why_idle, "; it could not load ",
                        RefusedText(worker.worker.refused));
      }
    } else if (worker.worker.IsAvailable() && worker.stage < 0) {
      worker.why_idle = "it does not have the model's file";
    }
  }
}

}  // namespace tern
