#ifndef COORDINATOR_STAGE_CUT_H_
#define COORDINATOR_STAGE_CUT_H_

#include <cstdint>
#include <vector>

#include "absl/types/optional.h"
#include "absl/types/span.h"
#include "coordinator/refused_stage.h"
#include "model/stage_plan.h"
#include "model/step_times.h"

namespace tern {

// A worker that is to have a stage.
struct CutWorker {
  StepTimes times;           // known, of this model
  int64_t memory_bytes = 0;  // for weights and KV pool
  int64_t layer_bytes = 0;   // of a layer's weights, as it packs them
  int64_t head_bytes = 0;
  // Of what it sends to other stages.
  double link_latency_s = 0;
  double link_s_per_byte = 0;
  // What it has in memory, and need not load again.
  absl::optional<StageRange> holds;
  // What it could not load, and shall not be given again.
  std::vector<RefusedStage> refused;
};

// What is cut, and for which load: `n_sequences` that decode with
// `context_tokens` each, or as many of them as the KV pool holds, shared out
// evenly over as many micro-batches as stages.
struct CutTask {
  int n_layers = 0;            // all alike; at least 1
  int64_t hidden_bytes = 0;    // of a token, from stage to stage
  int64_t kv_block_bytes = 0;  // of one layer
  int kv_block_size = 16;      // tokens
  // Blocks that every stage must have room for, and that are of use. At least
  // 1, and in this order.
  int kv_blocks_least = 1;
  int kv_blocks_most = 1;
  int n_sequences = 1;     // at least 1
  int context_tokens = 1;  // at least 1
  // How much slower a cut may be that keeps more layers where they are.
  double keep_slack = 0.05;
};

struct CutStage {
  int worker = 0;  // index
  int layer_begin = 0;
  int layer_end = 0;
};

// What a cut is expected to do.
struct CutForecast {
  std::vector<double> stage_s;  // of one micro-batch, by stage
  std::vector<double> link_s;   // from it to the next stage, or to the first
  int n_running = 0;            // sequences
  int n_micro_batches = 0;
  int slowest_stage = 0;
  // Whether the round below is longer than the turns on that stage.
  bool is_round_bound = false;
  double round_s = 0;  // of a micro-batch through all stages and links
  // In which every sequence gets a token: the longer of the round, and all
  // micro-batches on the slowest stage.
  double cycle_s = 0;
  double tokens_per_second = 0;
};

struct StageCut {
  std::vector<CutStage> stages;
  int kv_blocks = 0;
  CutForecast forecast;
  // RefusedLayers() of all stages together: 0 unless there was no other cut.
  int64_t refused_layers = 0;
};

// Of a given cut. REQUIRES: the stages cover the layers in order.
CutForecast ForecastCut(const CutTask& task,
                        absl::Span<const CutWorker> workers,
                        absl::Span<const CutStage> stages, int kv_blocks);

// KV blocks that every stage has room for, up to kv_blocks_most; 0 or less when
// one lacks memory even for the weights.
int64_t KvBlocksThatFit(const CutTask& task,
                        absl::Span<const CutWorker> workers,
                        absl::Span<const CutStage> stages);

// RefusedLayers() of all stages together.
int64_t RefusedLayers(const CutTask& task, absl::Span<const CutWorker> workers,
                      absl::Span<const CutStage> stages);

// Cuts the layers into one contiguous stage for each of the workers, the head
// behind the last one; nothing when they lack memory. Pure.
//
// Exact: for a size of the KV pool, which says how many sequences run, no
// number of layers for each worker and no choice of the last one has a shorter
// cycle (by more than a millionth). Layers cost the same and what a worker
// sends takes the same to whomever, so that the order of the others does not
// matter; it is that of `workers`. Pool sizes tried: what all sequences need,
// 3/4, 1/2, 1/4 and 1/8 of that, and `kv_blocks_least`; the one that gives the
// most tokens per second is taken, and what memory is left is added to it.
//
// Workers that hold layers are then put where these are, as long as the cycle
// grows by no more than `keep_slack`: of the orders "by the first layer held,
// the others where layers are missing" and "as above" the cut that keeps the
// most layers, and of those the one with the fastest slowest stage.
//
// A cut that gives workers what they have refused is taken when there is none
// that does not, and then the one with the fewest `refused_layers`, however
// slow: looked for in the order above, in those with two workers exchanged, and
// with up to four workers in all orders.
//
// Parametric in the time of the slowest stage: O(S log(1/precision)) for S
// workers and a pool size, O(S^2 log) where links or a lone sequence make the
// round longer than the stages' turns, O(S L^2 log) to keep layers.
absl::optional<StageCut> CutStages(const CutTask& task,
                                   absl::Span<const CutWorker> workers);

// Tokens per second of CutStages() without what keeping layers costs, for those
// of `workers` whose indices are given; 0 when they lack memory, and perhaps
// when no cut of theirs gives more than `more_than`. What workers have refused
// makes no difference to it, but that it is a millionth where up to four of
// them cannot be cut around that.
double CutRate(const CutTask& task, absl::Span<const CutWorker> workers,
               absl::Span<const int> chosen, double more_than = 0);

}  // namespace tern

#endif  // COORDINATOR_STAGE_CUT_H_
