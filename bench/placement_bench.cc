// Cost of placing stages, which the engine's thread does.
//
//   bazel run -c opt //bench:placement_bench
//
// Place/WORKERS/NEEDED: so many workers of four speeds, of which a model of 128
// layers needs so many. PlaceAround: every other worker could not load the
// stage that it would be given first, the first half of the layers.

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "benchmark/benchmark.h"
#include "coordinator/cluster_view.h"
#include "coordinator/placement.h"
#include "coordinator/refused_stage.h"
#include "model/model_config.h"
#include "model/stage_plan.h"
#include "util/logging.h"

namespace tern {
namespace {

void PlaceAll(benchmark::State& state, bool with_refused) {
  const int n_workers = static_cast<int>(state.range(0));
  const int64_t n_needed = state.range(1);
  ModelConfig config;
  config.n_layers = 128;
  config.hidden_size = 2560;
  config.ffn_size = 6912;
  config.n_heads = 20;
  config.n_kv_heads = 5;
  config.head_dim = 128;
  config.vocab_size = 128256;
  config.context_length = 4096;
  PlacementOptions options;
  options.n_stages = 0;
  const StageCost cost = CostOf(config, {0, 128, true, true}, true, 0, 16);
  const int64_t context_blocks = 4096 / 16;
  std::vector<Worker> workers(n_workers);
  std::vector<PlacementCandidate> candidates;
  for (int i = 0; i < n_workers; ++i) {
    WorkerRegistration& r = workers[i].registration;
    r.worker_id = std::to_string(i);
    // A tenth is not used, and a head goes to one of them.
    r.memory_bytes =
        (cost.weight_bytes + 8 * context_blocks * cost.kv_block_bytes) /
        n_needed * 13 / 10;
    // No two alike, as when they are measured.
    const double slow = 1 + i % 4 + 1e-3 * i;
    r.step_times = {3e-4 * slow, 1e-4 * slow, 1e-8 * slow, 6e-3 * slow,
                    1e-3 * slow};
    if (with_refused && i % 2 == 0) {
      workers[i].refused = {{{0, 64, true, false}, absl::DataLossError("")}};
    }
    candidates.push_back({&workers[i], {}});
  }
  size_t n_pipelines = 0;
  for (auto _ : state) {
    const Placements placements = PlacePipelines(config, options, candidates);
    CHECK(!placements.pipelines.empty()) << placements.why_none;
    n_pipelines = placements.pipelines.size();
  }
  state.counters["pipelines"] = static_cast<double>(n_pipelines);
}
void Place(benchmark::State& state) { PlaceAll(state, false); }
void PlaceAround(benchmark::State& state) { PlaceAll(state, true); }

BENCHMARK(PlaceAround)
    ->Args({2, 2})
    ->Args({10, 3})
    ->Args({64, 4})
    ->Unit(benchmark::kMillisecond);
BENCHMARK(Place)
    ->Args({2, 1})
    ->Args({10, 1})
    ->Args({10, 3})
    ->Args({64, 1})
    ->Args({64, 4})
    ->Args({64, 16})
    ->Args({64, 32})
    ->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace tern

BENCHMARK_MAIN();
