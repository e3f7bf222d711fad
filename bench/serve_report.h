#ifndef BENCH_SERVE_REPORT_H_
#define BENCH_SERVE_REPORT_H_

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "bench/cpu_times.h"
#include "bench/load_generator.h"
#include "bench/statistics.h"

namespace tern {

// CPU time of the coordinator while things counted.
struct CoordinatorCpu {
  absl::Duration total;
  // Threads of one name together; "(ended)" for those that are gone.
  std::map<std::string, absl::Duration> by_thread_name;
};
CoordinatorCpu CpuBetween(const CpuTimes& before, const CpuTimes& after);

// One stage of a mock pipeline.
struct StageReport {
  std::string worker_id;
  int64_t n_steps = 0;
  int64_t n_tokens = 0;
  double idle_share = 0;  // between its first and its last step
};

// All that a run of the serving benchmark found.
struct ServeReport {
  std::vector<std::pair<std::string, std::string>> settings;  // for people
  LoadResult load;                                            // lists sorted
  Summary ttft_ms;
  Summary e2e_ms;
  Summary gap_ms;
  Summary mean_gap_ms;
  absl::optional<CoordinatorCpu> coordinator_cpu;
  std::vector<StageReport> stages;
};

// Sorts the lists of `load` and sums them up.
ServeReport MakeReport(LoadResult load);

// As tables for a terminal.
std::string TextOf(const ServeReport& report);

// As one JSON object; docs/benchmarks.md names its fields.
std::string JsonOf(const ServeReport& report);

// Distributions of the latencies, and tokens per second over time.
std::string PlotOf(const ServeReport& report);

}  // namespace tern

#endif  // BENCH_SERVE_REPORT_H_
