#ifndef COORDINATOR_SCHEDULER_H_
#define COORDINATOR_SCHEDULER_H_

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "coordinator/block_manager.h"
#include "coordinator/sequence.h"
#include "coordinator/step_plan.h"

namespace tern {

// Something that happened to a sequence: a token, its end, or both.
struct SequenceEvent {
  int64_t id = 0;

  // A new token of the log, or -1.
  int32_t token = -1;
  std::optional<TokenLogprobs> logprobs;  // of the token, when asked for

  // Set in the last event of the sequence.
  bool ended = false;
  // Why it failed; OK when it was answered, and then `reason` counts.
  absl::Status status;
  FinishReason reason = FinishReason::kStop;
  int32_t stop_token_id = -1;
};

// Decides what each step of one pipeline runs: continuous batching with chunked
// prefill.
//
// A step takes the decode rows first, an even share of all decoding sequences
// for each micro-batch in flight, then prefill up to `max_step_tokens`; while
// others decode, waiting prompt tokens are spread over several steps, so that
// one long prompt does not stretch every step. Blocks are allocated when a row
// needs them. When none is free, the sequence of the lowest rank is pre-empted:
// it gives up its blocks and waits, and is later replayed from its token log as
// prefill. The sequence of the highest rank is never pre-empted, and every
// admitted sequence fits the pool alone, so there is always progress.
//
// Pure: no clock, no I/O; same calls, same plans. Not thread-safe: owned by the
// engine thread.
class Scheduler {
 public:
  struct Options {
    // Most tokens of one step, prefill and decode together. At least 1.
    int max_step_tokens = 512;
    // Most sequences that hold KV blocks. At least 1.
    int max_sequences = 64;
    // Most sequences that wait for their first step. At least 1.
    int max_waiting = 1024;
    // While others decode, prefill takes about one in so many of the waiting
    // prompt tokens in a step, but at least `min_prefill_tokens`.
    int prefill_spread_steps = 4;
    int min_prefill_tokens = 64;
  };

  // The pipeline that plans are made for.
  struct Capacity {
    int n_blocks = 0;
    int block_size = 16;
    // Micro-batches in flight: the number of stages, or a few more.
    int max_in_flight = 1;
  };

  explicit Scheduler(const Options& options);

  // A pipeline is there, its workers knowing nothing. Steps count from 1 again.
  // Returns the ends of sequences that can never fit it (RESOURCE_EXHAUSTED).
  // REQUIRES: no pipeline: PreemptAll() came before.
  std::vector<SequenceEvent> StartEpoch(const Capacity& capacity);

  // The pipeline is lost: everything goes back to waiting, to be replayed from
  // the token logs; what was in flight will not be reported.
  void PreemptAll();

  // Queues `n_samples` sequences, all or none: ids from `first_id` on, alike
  // but for their sample_index, from 0. Among equals, the lower id counts as
  // the earlier one. RESOURCE_EXHAUSTED when so many more may not wait, or when
  // one can never fit the KV cache. REQUIRES: n_samples > 0; no sequence of
  // these ids is there.
  absl::Status Add(int64_t first_id, SequenceParameters parameters,
                   int n_samples = 1);

  // Whether so many more sequences may wait.
  bool HasRoomFor(int n_samples) const {
    return n_waiting() + n_samples <= options_.max_waiting;
  }

  // The next step, or nothing while enough are in flight or there is nothing to
  // run. A plan without rows tells idle workers to free what nobody needs any
  // more.
  std::optional<StepPlan> Schedule();

  // Takes the result of the oldest step in flight. INTERNAL, with nothing
  // changed, when it does not answer that step: the workers cannot be trusted
  // any more.
  absl::Status Complete(const StepResult& result,
                        std::vector<SequenceEvent>* events);

  // Drops a sequence, without an event. False when it is not known (any more).
  bool Abort(int64_t id);

  // Ends every sequence whose deadline is not after `now`.
  std::vector<SequenceEvent> ExpireDeadlines(absl::Time now);

  // When the next deadline is; InfiniteFuture when there is none.
  absl::Time next_deadline() const;

  // Null when there is no such sequence (any more).
  const Sequence* Find(int64_t id) const;

  bool has_pipeline() const { return blocks_ != nullptr; }
  int n_sequences() const { return static_cast<int>(sequences_.size()); }
  int n_waiting() const { return static_cast<int>(waiting_.size()); }
  int n_running() const { return static_cast<int>(running_.size()); }
  int n_in_flight() const { return static_cast<int>(in_flight_.size()); }
  // Null without a pipeline.
  const BlockManager* blocks() const { return blocks_.get(); }
  int64_t n_preemptions() const { return n_preemptions_; }

 private:
  using ByRank = std::set<std::pair<Sequence::Rank, Sequence*>>;

  struct InFlightRow {
    int64_t id;
    int64_t run_id;
    int position_sampled;  // of the token to come; -1 when the row samples none
  };
  struct InFlightStep {
    int64_t step_id;
    std::vector<InFlightRow> rows;
  };

  void AddDecodeRows(StepPlan* plan);
  void AddPrefillRows(StepPlan* plan);
  void AdmitWaiting();
  void ServeHighestRank();
  bool TryAdmit(Sequence* sequence);
  bool TryAllocate(Sequence* sequence, int n_positions);
  bool PreemptLowerThan(const Sequence& sequence, bool strictly_less_urgent);
  void AddRow(Sequence* sequence, int n_tokens, StepPlan* plan);

  int StepTokensLeft() const { return options_.max_step_tokens - step_tokens_; }
  int BlocksPromised() const;
  int64_t PrefillTokensWaiting() const;
  absl::Status CheckFits(const SequenceParameters& parameters) const;

  void Preempt(Sequence* sequence);
  void ReleaseRun(Sequence* sequence);
  void Erase(Sequence* sequence);

  const Options options_;
  std::unique_ptr<BlockManager> blocks_;  // null without a pipeline
  int max_in_flight_ = 1;

  absl::flat_hash_map<int64_t, std::unique_ptr<Sequence>> sequences_;
  ByRank waiting_;  // hold nothing
  ByRank running_;  // hold blocks and a run id
  std::set<std::pair<absl::Time, int64_t>> deadlines_;  // finite ones only

  std::deque<InFlightStep> in_flight_;     // oldest first
  std::vector<int64_t> released_run_ids_;  // for the next plan
  int64_t last_run_id_ = 0;  // never repeats, not even across epochs
  int64_t last_step_id_ = 0;
  int64_t n_preemptions_ = 0;

  int step_tokens_ = 0;  // of the plan being made
};

}  // namespace tern

#endif  // COORDINATOR_SCHEDULER_H_
