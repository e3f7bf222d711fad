#ifndef BENCH_MOCK_STAGE_H_
#define BENCH_MOCK_STAGE_H_

#include <cstdint>
#include <memory>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "worker/kv_cache.h"
#include "worker/sampler.h"
#include "worker/step.h"
#include "worker/step_limits.h"

namespace tern {

// Time that a whole model takes for a step, as a sum. Nothing is negative.
struct CostModel {
  absl::Duration per_step;   // with at least one row
  absl::Duration per_token;  // of prompts and new ones alike
  // For each position that a token attends to, its own included.
  absl::Duration per_context;
};

// What a step asks of a stage.
struct StepWork {
  int64_t n_tokens = 0;
  // Sum over the tokens of the positions each attends to: a row of n tokens
  // from position p adds n p + n (n + 1) / 2.
  int64_t n_context = 0;
};
StepWork WorkOf(const StepPlan& plan);

// The part `share` of what the model takes; nothing for a step without rows.
absl::Duration StepTime(const CostModel& cost, const StepWork& work,
                        double share);

// A stage without weights: takes the plans that a real one takes, refuses those
// that a real one refuses (sequences and KV blocks are kept by the same
// KvCache), and says how long a step would have lasted.
//
// Pure: no clock, no threads; same plans, same results. Not thread-safe.
class MockStage {
 public:
  struct Options {
    CostModel cost;
    // Part of the model's time that this stage takes, in [0, 1].
    double share = 1;
    // Answers end with a stop token after so many tokens; 0 for never. Of
    // sequences without stop tokens none ends.
    int answer_tokens = 0;
  };

  // RESOURCE_EXHAUSTED when the system has no room for the block tables.
  static absl::StatusOr<std::unique_ptr<MockStage>> Create(
      const Options& options, const StepLimits& limits);

  struct Outcome {
    StepResult result;  // wait_ns is 0
    int64_t n_tokens = 0;
  };

  // Runs the next plan, which keeps to the limits (ParseStepPlan()). The error
  // is what a real worker ends the stream with: nothing after it may run.
  //
  // The last stage samples. A token depends on the sequence's seed, its
  // sample_index and the position alone, so that a replay gives it again, and
  // stops the sequence only where `answer_tokens` says so.
  absl::StatusOr<Outcome> Run(const StepPlan& plan);

  int sequence_count() const { return kv_->sequence_count(); }

 private:
  MockStage(const Options& options, const StepLimits& limits,
            std::unique_ptr<KvCache> kv);

  absl::Status UpdateSequences(const StepPlan& plan);
  SampledToken Sample(int64_t sequence_id, int32_t position) const;
  ScoredRow Score(const StepRow& row) const;
  TokenLogprobs Logprobs(int n_alternatives) const;

  const Options options_;
  const StepLimits limits_;
  const std::unique_ptr<KvCache> kv_;  // its pool is never touched
  absl::flat_hash_map<int64_t, SamplerParams> samplers_;  // by sequence id
  int64_t last_step_id_ = 0;
};

}  // namespace tern

#endif  // BENCH_MOCK_STAGE_H_
