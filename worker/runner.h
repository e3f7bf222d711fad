#ifndef WORKER_RUNNER_H_
#define WORKER_RUNNER_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "model/step_times.h"
#include "util/clock.h"
#include "worker/kv_cache.h"
#include "worker/sampler.h"
#include "worker/slowdown.h"
#include "worker/stage.h"
#include "worker/stage_links.h"
#include "worker/step.h"
#include "worker/step_mailbox.h"
#include "worker/thread_pool.h"
#include "worker/token_history.h"
#include "worker/token_ring.h"

namespace tern {

// The one compute thread of a loaded stage, for one epoch: takes plans from the
// mailbox in order, runs them, passes hidden states on and reports.
//
// The thread ends with the stream of plans, or with the first plan that cannot
// be run: a sequence or block that the coordinator sees otherwise than this
// worker means that nothing after it can be trusted. The stream's sink gets the
// reason.
class Runner {
 public:
  struct Options {
    // How long hidden states, and tokens of the last stage, may take to come.
    absl::Duration hidden_states_timeout = absl::Seconds(60);
    // Told of every step. Outlives the runner; may be null.
    Slowdown* slowdown = nullptr;
  };

  // Starts the thread. Everything borrowed must outlive the runner, and belongs
  // to its thread until the destructor returns.
  //
  // finished_steps: grows by one with each step.
  Runner(const Options& options, Stage* stage, KvCache* kv, ThreadPool* pool,
         std::shared_ptr<StepMailbox> mailbox, StageLinks links, Clock* clock,
         std::atomic<int64_t>* finished_steps);

  // Waits for the thread. REQUIRES: the mailbox was ended or aborted.
  ~Runner();

 private:
  // What the last stage keeps of a sequence.
  struct SequenceState {
    SamplerParams sampler;
    TokenHistory history;    // kept up when the sampler needs it
    int32_t n_recorded = 0;  // tokens in it
  };

  // A row of the step that samples.
  struct SamplingRow {
    SequenceState* sequence;
    // Guesses at the tokens to sample, but for the last one.
    absl::Span<const int32_t> drafts;
    SampledToken* sampled;  // room for them all
    int first_logits;       // among those of the step
    int n_sampled = 0;
    bool goes_on = true;  // while guesses come true
  };

  // A token of the step's `scored_tokens`.
  struct ScoredToken {
    int logits;  // among those of the step
    size_t row;  // of the result's `scored`
    size_t i;    // in it
    int32_t token_id;
    int n_alternatives;
    absl::Status status;
  };

  void Main();
  absl::Status RunAll();
  absl::Status Run(StepPlan* plan, StepResult* result);
  absl::Status UpdateSequences(const StepPlan& plan);
  absl::Status Forward(const StepPlan& plan, StepResult* result);
  // Fills rows_ with what this stage computes, and says what that takes.
  StepLoad CollectRows(const StepPlan& plan);
  void KeepBoundary(const float* hidden);
  // hidden: of rows_.
  absl::Status SendHidden(const StepPlan& plan, const float* hidden);
  absl::Status RecordTokens(const StepRow& row);
  static void Record(int32_t token, SequenceState* sequence);
  void Sample(const StepPlan& plan, const float* hidden, StepResult* result);
  void AddScoredTokens(const StepRow& row, int first_logits,
                       StepResult* result);
  void Score(int logits_begin, int logits_end, StepResult* result);
  void FinishScores(StepResult* result) const;
  void SampleRow(SamplingRow* row, int logits_begin, int logits_end,
                 SamplerScratch* scratch) const;
  void SampleOne(absl::Span<const float> logits, const SequenceState& sequence,
                 SamplerScratch* scratch, SampledToken* token) const;

  const Options options_;
  Stage* const stage_;
  KvCache* const kv_;
  ThreadPool* const pool_;
  const std::shared_ptr<StepMailbox> mailbox_;
  const StageLinks links_;
  Clock* const clock_;
  std::atomic<int64_t>* const finished_steps_;

  // Of the runner thread.
  int64_t last_step_id_ = 0;
  TokenRing ring_;
  absl::flat_hash_map<int64_t, SequenceState> sequences_;  // by sequence id
  std::vector<float> received_;  // hidden states of the stage before
  std::vector<float> sent_;      // where they are not those just computed
  std::vector<MicroBatchRow> rows_;
  std::vector<SamplingRow> sampling_rows_;
  std::vector<ScoredToken> scored_tokens_;
  size_t n_scored_ = 0;                  // of them
  std::vector<SamplerScratch> scratch_;  // one per thread of the pool

  std::thread thread_;
};

}  // namespace tern

#endif  // WORKER_RUNNER_H_
