#include "coordinator/placement.h"

#include <algorithm>
#include <limits>
#include <map>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "coordinator/stage_match.h"
#include "model/step_times.h"

namespace tern {
namespace {

// What a worker is taken to read in a second when nobody has measured: only
// proportions matter then.
constexpr double kAssumedBytesPerSecond = 1e10;

// Rates are compared to this part of them.
constexpr double kSameRate = 1e-9;

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

int StageCount(const PlacementOptions& options) {
  return options.layer_cuts.empty()
             ? options.n_stages
             : static_cast<int>(options.layer_cuts.size()) + 1;
}

// What workers measure is an int8 head.
StepTimes WithHeadOf(const ModelConfig& config, const PlacementOptions& options,
                     StepTimes times) {
  if (options.head_int8) return times;
  const double ratio =
      static_cast<double>(HeadBytes(config, false, options.head_row_bytes)) /
      static_cast<double>(HeadBytes(config, true, 0));
  times.head_step_s *= ratio;
  times.head_row_s *= ratio;
  return times;
}

// Of workers that have measured nothing.
StepTimes AssumedTimes(const ModelConfig& config,
                       const PlacementOptions& options,
                       absl::Span<const PlacementCandidate> candidates) {
  std::vector<StepTimes> known;
  for (const PlacementCandidate& candidate : candidates) {
    const StepTimes& times = candidate.worker->registration.step_times;
    if (times.is_known()) known.push_back(times);
  }
  if (known.empty()) {
    StepTimes times;
    times.layer_step_s =
        static_cast<double>(LayerBytes(config)) / kAssumedBytesPerSecond;
    times.head_step_s = static_cast<double>(HeadBytes(config, options.head_int8,
                                                      options.head_row_bytes)) /
                        kAssumedBytesPerSecond;
    return times;
  }
  const auto middle = known.begin() + known.size() / 2;
  std::nth_element(known.begin(), middle, known.end(),
                   [](const StepTimes& a, const StepTimes& b) {
                     return a.layer_step_s + a.layer_token_s <
                            b.layer_step_s + b.layer_token_s;
                   });
  return WithHeadOf(config, options, *middle);
}

// Layers that a worker has room for, beside the smallest KV pool.
int64_t RoomOf(const CutTask& task, const CutWorker& worker, bool with_head) {
  const int64_t left =
      worker.memory_bytes - (with_head ? worker.head_bytes : 0);
  const int64_t each =
      worker.layer_bytes + task.kv_blocks_least * task.kv_block_bytes;
  return std::clamp<int64_t>(left / each, 0, task.n_layers);
}

// Of each class, all of them together, or those with the most room if they are
// more than layers; who loses least by it has the head.
bool FitTogether(const CutTask& task,
                 absl::Span<const PlacementCandidate> candidates,
                 absl::Span<const CutWorker> workers) {
  std::map<absl::string_view, std::vector<std::pair<int64_t, int64_t>>> rooms;
  for (size_t i = 0; i < workers.size(); ++i) {
    const int64_t room = RoomOf(task, workers[i], false);
    if (room == 0) continue;
    rooms[candidates[i].worker->registration.numerics_class].push_back(
        {room, RoomOf(task, workers[i], true)});
  }
  for (auto& [name, of_class] : rooms) {
    std::sort(of_class.rbegin(), of_class.rend());
    if (static_cast<int>(of_class.size()) > task.n_layers) {
      of_class.resize(task.n_layers);
    }
    int64_t sum = 0;
    int64_t least_lost = std::numeric_limits<int64_t>::max();
    for (const auto& [room, with_head] : of_class) {
      sum += room;
      if (with_head > 0) least_lost = std::min(least_lost, room - with_head);
    }
    if (least_lost < sum && sum - least_lost >= task.n_layers) return true;
  }
  return false;
}

absl::Status TooFew(size_t n, int n_stages) {
  return absl::UnavailableError(absl::StrCat(
      n, " of ", n_stages, " workers that a pipeline needs are ", "there"));
}

absl::Status TooSmall(const PlacementOptions& options, const CutTask& task,
                      absl::Span<const PlacementCandidate> candidates,
                      absl::Span<const CutWorker> workers) {
  // The smallest say most.
  std::vector<std::pair<int64_t, std::string>> rooms;
  for (size_t i = 0; i < workers.size(); ++i) {
    const int64_t room = RoomOf(task, workers[i], false);
    rooms.push_back(
        {room, absl::StrCat(
                   "worker ", candidates[i].worker->registration.worker_id,
                   " offers ", workers[i].memory_bytes >> 20, " MiB, which is ",
                   room, room == 1 ? " layer" : " layers")});
  }
  std::stable_sort(
      rooms.begin(), rooms.end(),
      [](const auto& a, const auto& b) { return a.first < b.first; });
  constexpr size_t kNamed = 4;
  std::vector<std::string> named;
  for (size_t i = 0; i < std::min(rooms.size(), kNamed); ++i) {
    named.push_back(rooms[i].second);
  }
  if (rooms.size() > kNamed) {
    named.push_back(absl::StrCat("and ", rooms.size() - kNamed, " more"));
  }
  return absl::FailedPreconditionError(absl::StrCat(
      "the model's ", task.n_layers, " layers (",
      (workers[0].layer_bytes * task.n_layers) >> 20, " MiB), its head (",
      workers[0].head_bytes >> 20, " MiB) and a KV cache of ",
      int64_t{task.kv_blocks_least} * task.kv_block_size, " tokens (",
      (task.kv_block_bytes * task.kv_blocks_least * task.n_layers) >> 20,
      " MiB) do not fit: ", absl::StrJoin(named, ", "),
      options.n_stages > 0 ? ": use more stages" : ": add workers",
      ", a smaller --kv_cache_tokens, or more memory"));
}

// Decides whether the stages keep their boundary, for which the KV cache may
// have to be smaller.
void DecideBoundary(const PlacementOptions& options, const CutTask& task,
                    absl::Span<const CutWorker> workers, const StageCut& cut,
                    Placement* placement) {
  if (cut.stages.size() < 2 ||
      options.keep_boundary == BoundaryKeeping::kNever) {
    return;
  }
  int64_t n_blocks = placement->kv_block_count;
  for (const CutStage& stage : cut.stages) {
    if (stage.layer_end == task.n_layers) continue;  // It keeps none.
    const CutWorker& worker = workers[stage.worker];
    const int64_t n_layers = stage.layer_end - stage.layer_begin;
    const int64_t left = worker.memory_bytes - n_layers * worker.layer_bytes;
    n_blocks =
        std::min(n_blocks, left / (n_layers * task.kv_block_bytes +
                                   task.kv_block_size * task.hidden_bytes));
  }
  const int64_t n_least =
      options.keep_boundary == BoundaryKeeping::kAlways
          ? std::min(task.kv_blocks_least, placement->kv_block_count)
          : placement->kv_block_count;
  if (n_blocks < n_least) return;
  placement->keeps_boundary = true;
  placement->kv_block_count = static_cast<int>(n_blocks);
}

Placement MakePlacement(const PlacementOptions& options,
                        absl::Span<const PlacementCandidate> candidates,
                        const CutTask& task,
                        absl::Span<const CutWorker> workers,
                        const StageCut& cut) {
  Placement placement;
  placement.kv_block_count = cut.kv_blocks;
  placement.forecast = cut.forecast;
  DecideBoundary(options, task, workers, cut, &placement);
  for (const CutStage& stage : cut.stages) {
    const WorkerRegistration& r = candidates[stage.worker].worker->registration;
    placement.stages.push_back(
        {r.worker_id,
         r.address,
         {stage.layer_begin, stage.layer_end, stage.layer_begin == 0,
          stage.layer_end == task.n_layers}});
  }
  return placement;
}

// A way to group some of the workers.
struct Grouping {
  double rate = 0;  // of all groups
  int n_workers = 0;
  size_t group = 0;  // the first one; what it is says who made it

  bool IsBetterThan(const Grouping& other) const {
    if (rate > other.rate * (1 + kSameRate)) return true;
    return rate >= other.rate * (1 - kSameRate) && n_workers < other.n_workers;
  }
};

bool IsSizePossible(int size, int n_stages, int n_layers) {
  return n_stages > 0 ? size == n_stages : size <= n_layers;
}

using Groups = std::vector<std::vector<int>>;

// Over all ways to group `members`: best[s] is that of the set s, which is its
// first worker's group, or leaves it out, and the best of the others.
Groups GroupAll(const CutTask& task, absl::Span<const CutWorker> workers,
                absl::Span<const int> members, int n_stages) {
  const int n = static_cast<int>(members.size());
  const auto members_of = [&](size_t set) {
    std::vector<int> group;
    for (int i = 0; i < n; ++i) {
      if (set >> i & 1) group.push_back(members[i]);
    }
    return group;
  };
  std::vector<double> rates(size_t{1} << n);
  std::vector<int> sizes(rates.size());
  for (size_t set = 1; set < rates.size(); ++set) {
    const std::vector<int> group = members_of(set);
    sizes[set] = static_cast<int>(group.size());
    if (IsSizePossible(sizes[set], n_stages, task.n_layers)) {
      rates[set] = CutRate(task, workers, group);
    }
  }
  std::vector<Grouping> best(rates.size());
  for (size_t set = 1; set < best.size(); ++set) {
    const size_t first = set & -set;
    const size_t others = set ^ first;
    Grouping chosen;  // a group of 0 leaves the first worker out
    // In ascending order, so that among equals the first workers are taken.
    for (size_t rest = 0;; rest = (rest - others) & others) {
      const size_t group = first | rest;
      if (rates[group] > 0) {
        const Grouping& after = best[set ^ group];
        const Grouping grouping = {after.rate + rates[group],
                                   after.n_workers + sizes[group], group};
        if (chosen.group == 0 || grouping.IsBetterThan(chosen)) {
          chosen = grouping;
        }
      }
      if (rest == others) break;
    }
    if (chosen.group == 0 || best[others].IsBetterThan(chosen)) {
      chosen = best[others];
      chosen.group = 0;
    }
    best[set] = chosen;
  }
  Groups groups;
  for (size_t set = best.size() - 1; set != 0;) {
    const size_t group = best[set].group;
    if (group != 0) groups.push_back(members_of(group));
    set ^= group != 0 ? group : set & -set;
  }
  return groups;
}

// Over all ways to cut the list of `members` by speed into groups and gaps.
Groups GroupNeighbours(const CutTask& task, absl::Span<const CutWorker> workers,
                       absl::Span<const int> members, int n_stages) {
  StepLoad load;
  load.n_tokens = load.n_rows = task.n_sequences;
  load.n_context = load.n_tokens * task.context_tokens;
  std::vector<int> sorted(members.begin(), members.end());
  std::stable_sort(sorted.begin(), sorted.end(), [&](int a, int b) {
    return LayerSeconds(workers[a].times, load) <
           LayerSeconds(workers[b].times, load);
  });
  const size_t n = sorted.size();
  // best[i]: of the list from i on.
  std::vector<Grouping> best(n + 1);
  for (size_t begin = n; begin-- > 0;) {
    Grouping chosen;  // a group of 0 leaves the first worker out
    for (size_t end = begin + 1; end <= n; ++end) {
      const int size = static_cast<int>(end - begin);
      if (!IsSizePossible(size, n_stages, task.n_layers)) continue;
      // As much would make it no better; a little less leaves room for ties.
      const double enough =
          (chosen.rate - best[end].rate) * (1 - 1e3 * kSameRate);
      const double rate =
          CutRate(task, workers,
                  absl::MakeConstSpan(sorted).subspan(begin, size), enough);
      if (rate <= 0) continue;
      const Grouping grouping = {best[end].rate + rate,
                                 best[end].n_workers + size, end - begin};
      if (chosen.group == 0 || grouping.IsBetterThan(chosen)) {
        chosen = grouping;
      }
    }
    if (chosen.group == 0 || best[begin + 1].IsBetterThan(chosen)) {
      chosen = best[begin + 1];
      chosen.group = 0;
    }
    best[begin] = chosen;
  }
  Groups groups;
  for (size_t begin = 0; begin < n;) {
    const size_t size = best[begin].group;
    if (size > 0) {
      groups.emplace_back(sorted.begin() + begin,
                          sorted.begin() + begin + size);
    }
    begin += std::max<size_t>(size, 1);
  }
  return groups;
}

// Stages of the ranges asked for, to the first that have the memory: to those
// that hold the range, else to those that hold none of the ranges; and, if it
// can be helped, to nobody who has refused it.
std::vector<StageCut> CutAsAsked(const ModelConfig& config,
                                 const PlacementOptions& options,
                                 const CutTask& task,
                                 absl::Span<const CutWorker> workers) {
  std::vector<CutStage> wanted;
  for (const int cut : options.layer_cuts) {
    wanted.push_back({-1, wanted.empty() ? 0 : wanted.back().layer_end, cut});
  }
  wanted.push_back({-1, wanted.back().layer_end, config.n_layers});
  std::vector<bool> is_taken(workers.size());
  const MayHave has_room = [&](const CutStage& stage) {
    return !is_taken[stage.worker] &&
           KvBlocksThatFit(task, workers, {stage}) >= task.kv_blocks_least;
  };
  const auto holds = [&workers](int worker, const CutStage& stage) {
    const absl::optional<StageRange>& held = workers[worker].holds;
    return held.has_value() && held->layer_begin == stage.layer_begin &&
           held->layer_end == stage.layer_end;
  };
  const MayHave keeps_it = [&](const CutStage& stage) {
    return has_room(stage) && holds(stage.worker, stage);
  };
  const MayHave costs_nobody = [&](const CutStage& stage) {
    return has_room(stage) && (holds(stage.worker, stage) ||
                               std::none_of(wanted.begin(), wanted.end(),
                                            [&](const CutStage& other) {
                                              return holds(stage.worker, other);
                                            }));
  };
  const auto unless_refused = [&](const MayHave& may_have) -> MayHave {
    return [&task, &workers, may_have](const CutStage& stage) {
      return may_have(stage) && RefusedLayers(task, workers, {stage}) == 0;
    };
  };
  const int n_workers = static_cast<int>(workers.size());
  std::vector<StageCut> cuts;
  while (true) {
    std::vector<CutStage> stages =
        MatchStages(wanted, n_workers,
                    {unless_refused(keeps_it), unless_refused(costs_nobody),
                     unless_refused(has_room)});
    if (stages.empty()) {
      stages =
          MatchStages(wanted, n_workers, {keeps_it, costs_nobody, has_room});
    }
    if (stages.empty()) return cuts;
    for (const CutStage& stage : stages) is_taken[stage.worker] = true;
    StageCut cut;
    cut.kv_blocks = static_cast<int>(KvBlocksThatFit(task, workers, stages));
    cut.forecast = ForecastCut(task, workers, stages, cut.kv_blocks);
    cut.refused_layers = RefusedLayers(task, workers, stages);
    cut.stages = std::move(stages);
    cuts.push_back(std::move(cut));
  }
}

}  // namespace

std::vector<PlacementCandidate> Candidates(
    absl::Span<const Worker* const> workers) {
  std::vector<PlacementCandidate> candidates;
  candidates.reserve(workers.size());
  for (const Worker* worker : workers) {
    candidates.push_back({worker, worker->holds});
  }
  return candidates;
}

bool ParseBoundaryKeeping(absl::string_view text, BoundaryKeeping* keeping) {
  if (text == "never") {
    *keeping = BoundaryKeeping::kNever;
  } else if (text == "auto") {
    *keeping = BoundaryKeeping::kWhereFree;
  } else if (text == "always") {
    *keeping = BoundaryKeeping::kAlways;
  } else {
    return false;
  }
  return true;
}

CutTask CutTaskOf(const ModelConfig& config, const PlacementOptions& options) {
  const int64_t context = CeilDiv(config.context_length, options.kv_block_size);
  const int64_t wanted =
      options.kv_cache_tokens > 0
          ? CeilDiv(options.kv_cache_tokens, options.kv_block_size)
          : std::max(context, CeilDiv(int64_t{options.max_sequences} *
                                          std::min(config.context_length,
                                                   kAutoContextMax),
                                      options.kv_block_size));
  const int64_t needed = options.kv_cache_tokens > 0 ? wanted : context;
  const auto clamped = [](int64_t n) {
    return static_cast<int>(
        std::clamp<int64_t>(n, 1, std::numeric_limits<int>::max()));
  };
  CutTask task;
  task.n_layers = config.n_layers;
  task.hidden_bytes =
      int64_t{config.hidden_size} * static_cast<int64_t>(sizeof(float));
  task.kv_block_bytes = CostOf(config, {0, 1, false, false}, options.head_int8,
                               options.head_row_bytes, options.kv_block_size)
                            .kv_block_bytes;
  task.kv_block_size = options.kv_block_size;
  task.kv_blocks_least = clamped(needed);
  task.kv_blocks_most = clamped(wanted);
  task.n_sequences = options.max_sequences;
  task.context_tokens =
      std::max(1, std::min(options.context_tokens, config.context_length));
  return task;
}

std::vector<CutWorker> CutWorkersOf(
    const ModelConfig& config, const PlacementOptions& options,
    absl::Span<const PlacementCandidate> candidates) {
  const StepTimes assumed = AssumedTimes(config, options, candidates);
  std::vector<CutWorker> workers;
  for (const PlacementCandidate& candidate : candidates) {
    const WorkerRegistration& r = candidate.worker->registration;
    const auto bytes = [&](bool has_head) {
      return CostOf(config, {0, 1, false, has_head}, options.head_int8,
                    options.head_row_bytes, options.kv_block_size,
                    r.packed_blocks)
          .weight_bytes;
    };
    CutWorker worker;
    worker.times = Scaled(r.step_times.is_known()
                              ? WithHeadOf(config, options, r.step_times)
                              : assumed,
                          candidate.worker->slowdown);
    worker.memory_bytes = UsableMemory(r.memory_bytes);
    worker.layer_bytes = bytes(false);
    worker.head_bytes = bytes(true) - bytes(false);
    worker.link_latency_s = candidate.worker->link_latency_s;
    if (r.link_bytes_per_second > 0) {
      worker.link_s_per_byte = 1 / r.link_bytes_per_second;
    }
    worker.holds = candidate.holds;
    worker.refused = candidate.worker->refused;
    workers.push_back(worker);
  }
  return workers;
}

Placements PlacePipelines(const ModelConfig& config,
                          const PlacementOptions& options,
                          absl::Span<const PlacementCandidate> candidates) {
  Placements placements;
  placements.why_none = CheckPlaceable(config, options, candidates);
  if (!placements.why_none.ok()) return placements;
  const CutTask task = CutTaskOf(config, options);
  const std::vector<CutWorker> workers =
      CutWorkersOf(config, options, candidates);
  if (!options.layer_cuts.empty()) {
    for (const StageCut& cut : CutAsAsked(config, options, task, workers)) {
      placements.pipelines.push_back(
          MakePlacement(options, candidates, task, workers, cut));
      placements.n_refused += cut.refused_layers > 0;
    }
  } else {
    std::map<std::string, std::vector<int>> by_class;
    for (size_t i = 0; i < candidates.size(); ++i) {
      by_class[candidates[i].worker->registration.numerics_class].push_back(
          static_cast<int>(i));
    }
    Groups groups;
    for (const auto& [name, members] : by_class) {
      for (std::vector<int>& group :
           members.size() <= kExactWorkersMax
               ? GroupAll(task, workers, members, options.n_stages)
               : GroupNeighbours(task, workers, members, options.n_stages)) {
        std::sort(group.begin(), group.end());
        groups.push_back(std::move(group));
      }
    }
    std::sort(groups.begin(), groups.end());
    for (const std::vector<int>& group : groups) {
      std::vector<CutWorker> members;
      for (const int i : group) members.push_back(workers[i]);
      absl::optional<StageCut> cut = CutStages(task, members);
      if (!cut.has_value()) continue;  // It had a rate, so it has a cut.
      for (CutStage& stage : cut->stages) stage.worker = group[stage.worker];
      placements.pipelines.push_back(
          MakePlacement(options, candidates, task, workers, *cut));
      placements.n_refused += cut->refused_layers > 0;
    }
  }
  if (placements.pipelines.empty()) {
    placements.why_none = TooSmall(options, task, candidates, workers);
  }
  return placements;
}

bool CanPlace(const ModelConfig& config, const PlacementOptions& options,
              absl::Span<const PlacementCandidate> candidates) {
  const int n_stages = StageCount(options);
  if (candidates.empty() || static_cast<int>(candidates.size()) < n_stages) {
    return false;
  }
  return n_stages > 0 || FitTogether(CutTaskOf(config, options), candidates,
                                     CutWorkersOf(config, options, candidates));
}

absl::Status CheckPlaceable(const ModelConfig& config,
                            const PlacementOptions& options,
                            absl::Span<const PlacementCandidate> candidates) {
  if (CanPlace(config, options, candidates)) return absl::OkStatus();
  const int n_stages = StageCount(options);
  if (candidates.empty() || static_cast<int>(candidates.size()) < n_stages) {
    return TooFew(candidates.size(), std::max(1, n_stages));
  }
  return TooSmall(options, CutTaskOf(config, options), candidates,
                  CutWorkersOf(config, options, candidates));
}

absl::Status CheckPlacementOptions(const ModelConfig& config,
                                   const PlacementOptions& options) {
  if (options.n_stages < 0 || options.n_stages > config.n_layers) {
    return absl::InvalidArgumentError(absl::StrCat(
        "cannot cut ", config.n_layers, " layers into ", options.n_stages,
        " stages; 1 to ", config.n_layers, " are possible, or 0 to decide"));
  }
  int begin = 0;
  for (const int cut : options.layer_cuts) {
    if (cut <= begin || cut >= config.n_layers) {
      return absl::InvalidArgumentError(
          absl::StrCat("--layer_cuts has ", cut, " behind ", begin,
                       "; cuts ascend from 1 ", "to ", config.n_layers - 1));
    }
    begin = cut;
  }
  if (!options.layer_cuts.empty() && options.n_stages > 0 &&
      options.n_stages != StageCount(options)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--layer_cuts makes ", StageCount(options),
                     " stages, --stages says ", options.n_stages));
  }
  return absl::OkStatus();
}

}  // namespace tern
