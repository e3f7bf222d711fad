#include "coordinator/recut.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include "absl/types/optional.h"
#include "model/step_times.h"

namespace tern {
namespace {

// From local files, which the system has cached.
constexpr double kLoadBytesPerSecond = 1e9;
// Until workers have let the old stage go and neighbours are connected.
constexpr absl::Duration kLeastOutage = absl::Milliseconds(500);

std::vector<CutStage> StagesOf(absl::Span<const StageRange> ranges) {
  std::vector<CutStage> stages;
  for (const StageRange& range : ranges) {
    stages.push_back(
        {static_cast<int>(stages.size()), range.layer_begin, range.layer_end});
  }
  return stages;
}

// Of what is loaded anew; stages load at the same time.
double LoadSeconds(const CutTask& task, absl::Span<const CutWorker> workers,
                   const StageCut& cut) {
  double longest = 0;
  for (const CutStage& stage : cut.stages) {
    const CutWorker& worker = workers[stage.worker];
    const bool has_head = stage.layer_end == task.n_layers;
    if (worker.holds.has_value() &&
        worker.holds->layer_begin == stage.layer_begin &&
        worker.holds->layer_end == stage.layer_end) {
      continue;
    }
    const int64_t n_layers = stage.layer_end - stage.layer_begin;
    const int64_t bytes =
        n_layers * worker.layer_bytes + (has_head ? worker.head_bytes : 0);
    longest =
        std::max(longest, static_cast<double>(bytes) / kLoadBytesPerSecond);
  }
  return longest;
}

// Of so many tokens of prompts, by the slowest stage.
double ReplaySeconds(absl::Span<const CutWorker> workers, const StageCut& cut,
                     int64_t n_tokens) {
  double slowest = 0;
  for (const CutStage& stage : cut.stages) {
    slowest = std::max(slowest, (stage.layer_end - stage.layer_begin) *
                                    workers[stage.worker].times.layer_token_s);
  }
  return slowest * static_cast<double>(n_tokens);
}

}  // namespace

CutForecast ForecastPipeline(const ModelConfig& config,
                             const PlacementOptions& options,
                             const RunningPipeline& pipeline) {
  return ForecastCut(CutTaskOf(config, options),
                     CutWorkersOf(config, options, pipeline.workers),
                     StagesOf(pipeline.ranges), pipeline.kv_block_count);
}

RecutForecast ForecastRecut(const ModelConfig& config,
                            const PlacementOptions& options,
                            const RunningPipeline& pipeline,
                            absl::Span<const PlacementCandidate> spares) {
  const CutTask task = CutTaskOf(config, options);
  std::vector<PlacementCandidate> candidates(pipeline.workers.begin(),
                                             pipeline.workers.end());
  candidates.insert(candidates.end(), spares.begin(), spares.end());
  const std::vector<CutWorker> workers =
      CutWorkersOf(config, options, candidates);
  RecutForecast forecast;
  forecast.rate_now = ForecastCut(task, workers, StagesOf(pipeline.ranges),
                                  pipeline.kv_block_count)
                          .tokens_per_second;
  forecast.rate_then = forecast.rate_now;
  // Where stages are asked for there is nothing to decide.
  if (!options.layer_cuts.empty()) return forecast;

  const int n_own = static_cast<int>(pipeline.workers.size());
  std::vector<int> by_speed(workers.size());
  std::iota(by_speed.begin(), by_speed.end(), 0);
  StepLoad load;
  load.n_tokens = load.n_rows = task.n_sequences;
  load.n_context = load.n_tokens * task.context_tokens;
  const std::vector<int> own(by_speed.begin(), by_speed.begin() + n_own);
  std::stable_sort(by_speed.begin(), by_speed.end(), [&](int a, int b) {
    return LayerSeconds(workers[a].times, load) <
           LayerSeconds(workers[b].times, load);
  });
  std::vector<std::vector<int>> groups = {own};
  for (size_t n = 1; n <= by_speed.size(); ++n) {
    groups.emplace_back(by_speed.begin(), by_speed.begin() + n);
  }
  const std::vector<int>* best = nullptr;
  for (const std::vector<int>& group : groups) {
    const int size = static_cast<int>(group.size());
    if (options.n_stages > 0 && size != options.n_stages) continue;
    const double rate = CutRate(task, workers, group, forecast.rate_then);
    if (rate <= forecast.rate_then) continue;
    forecast.rate_then = rate;
    best = &group;
  }
  if (best == nullptr) return forecast;
  std::vector<CutWorker> members;
  for (const int i : *best) members.push_back(workers[i]);
  const absl::optional<StageCut> cut = CutStages(task, members);
  if (!cut.has_value()) return forecast;  // It had a rate, so it has a cut.
  // Around what its workers have refused it may be slower than that.
  if (std::any_of(members.begin(), members.end(), [](const CutWorker& worker) {
        return !worker.refused.empty();
      })) {
    forecast.rate_then =
        std::max(forecast.rate_now, cut->forecast.tokens_per_second);
  }
  forecast.outage =
      kLeastOutage +
      absl::Seconds(LoadSeconds(task, members, *cut) +
                    ReplaySeconds(members, *cut, pipeline.n_tokens));
  return forecast;
}

bool RecutPays(const RecutOptions& options, const RecutForecast& forecast) {
  return forecast.rate_then > forecast.rate_now * (1 + options.min_gain) &&
         (forecast.rate_then - forecast.rate_now) *
                 absl::ToDoubleSeconds(options.horizon) >
             forecast.rate_now * absl::ToDoubleSeconds(forecast.outage);
}

}  // namespace tern
