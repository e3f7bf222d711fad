#ifndef COORDINATOR_RECUT_H_
#define COORDINATOR_RECUT_H_

#include <cstdint>

#include "absl/time/time.h"
#include "absl/types/span.h"
#include "coordinator/placement.h"
#include "coordinator/stage_cut.h"
#include "model/model_config.h"
#include "model/stage_plan.h"

namespace tern {

struct RecutOptions {
  // A pipeline is cut anew at most once in so long, and no sooner than that
  // after it began to serve; zero for never.
  absl::Duration interval = absl::Seconds(60);
  // By how much its tokens per second must grow.
  double min_gain = 0.2;
  // Over which the gain must outweigh what is lost meanwhile.
  absl::Duration horizon = absl::Minutes(10);
};

// A pipeline that serves, with what is known of its workers now.
struct RunningPipeline {
  absl::Span<const PlacementCandidate> workers;  // of the stages, in order
  absl::Span<const StageRange> ranges;
  int kv_block_count = 0;
  // Of the sequences that run on it, which would be replayed.
  int64_t n_tokens = 0;
};

// What is expected of a pipeline as it is.
CutForecast ForecastPipeline(const ModelConfig& config,
                             const PlacementOptions& options,
                             const RunningPipeline& pipeline);

struct RecutForecast {
  double rate_now = 0;  // tokens per second
  double rate_then = 0;
  // Until the new pipeline has loaded its layers and replayed the sequences.
  absl::Duration outage;

  double gain() const { return rate_now > 0 ? rate_then / rate_now - 1 : 0; }
};

// What the pipeline would do if it were cut anew, with spares or without: the
// best of its own workers, and of the fastest 1, 2, 3 ... of them and the
// spares together. As fast as now where there is nothing better. Layers that
// change hands load at 1 GB/s. Pure.
RecutForecast ForecastRecut(const ModelConfig& config,
                            const PlacementOptions& options,
                            const RunningPipeline& pipeline,
                            absl::Span<const PlacementCandidate> spares);

// Whether that pays: at least `min_gain` faster, and over the horizon more
// tokens gained than are lost in the outage.
bool RecutPays(const RecutOptions& options, const RecutForecast& forecast);

}  // namespace tern

#endif  // COORDINATOR_RECUT_H_
