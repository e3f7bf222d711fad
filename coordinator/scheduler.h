#ifndef COORDINATOR_SCHEDULER_H_
#define COORDINATOR_SCHEDULER_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "coordinator/fair_queue.h"
#include "coordinator/lane.h"
#include "coordinator/sequence.h"
#include "coordinator/step_plan.h"

namespace tern {

// Something that happened to a sequence: a token, its end, or both.
struct SequenceEvent {
  int64_t id = 0;

  // A new token of the log, or -1.
  int32_t token = -1;
  std::optional<TokenLogprobs> logprobs;  // of the token, when asked for

  // Of the prompt, when asked for: of its next tokens, from the second on.
  // Those of the whole prompt have come before the first token.
  std::vector<TokenLogprobs> prompt_logprobs;

  // Set in the last event of the sequence.
  bool ended = false;
  // Why it failed; OK when it was answered, and then `reason` counts.
  absl::Status status;
  FinishReason reason = FinishReason::kStop;
  int32_t stop_token_id = -1;
  int n_prompt_cached = 0;  // see Sequence
};

// Decides which sequence runs where and when: continuous batching over the
// pipelines of a model.
//
// What has not run yet, or was pre-empted, waits in one line for all pipelines
// (FairQueue says whose turn it is). Whoever is next goes to the pipeline that
// has room and would come to it soonest: least to compute before its next
// token, what is in its KV cache not counted. Without room anywhere it takes
// the place of a less urgent sequence, or of the latest one of a tenant that
// runs more and has had no less; otherwise it waits, and all behind it, else a
// large one would wait for ever. What each step runs is up to the pipeline's
// Lane.
//
// Pure: no clock, no I/O; same calls, same plans. Not thread-safe: owned by the
// engine thread.
class Scheduler {
 public:
  struct Options : Lane::Options {
    // Most sequences that wait for their first step. At least 1.
    int max_waiting = 1024;
    // Most prompt tokens that wait with them and are not in a KV cache; one
    // prompt may wait whatever its length. At least 1.
    int64_t max_waiting_tokens = 4 << 20;
  };
  using Capacity = Lane::Capacity;
  using Counters = Lane::Counters;

  explicit Scheduler(const Options& options);

  // A pipeline is there, its workers knowing nothing but what is in `kept`,
  // blocks that StopPipeline() returned. Its steps count from 1. Returns the
  // ends of sequences that can never fit any pipeline (RESOURCE_EXHAUSTED).
  // REQUIRES: no pipeline of that index; index >= 0; `kept` fits the capacity.
  std::vector<SequenceEvent> StartPipeline(
      int index, const Capacity& capacity,
      std::optional<BlockManager> kept = std::nullopt);

  // The pipeline is lost: what ran on it goes back to waiting, to be replayed
  // from the token logs; what was in flight will not be reported. Returns what
  // its blocks hold for certain: what steps that were answered computed.
  // Nothing happens when there is none.
  std::optional<BlockManager> StopPipeline(int index);

  // The pipeline finishes what it runs and takes in nothing more.
  // REQUIRES: the pipeline is there.
  void ClosePipeline(int index) { lanes_.at(index)->Close(); }

  // Queues `n_samples` sequences, all or none: ids from `first_id` on, alike
  // but for their sample_index, from 0, and that only the first one scores the
  // prompt. Among equals, the lower id counts as the earlier one.
  // RESOURCE_EXHAUSTED when so many more may not wait, or when one can never
  // fit the KV cache; DEADLINE_EXCEEDED when the first token is not to be
  // expected before the deadline. REQUIRES: n_samples > 0; no sequence of these
  // ids is there.
  absl::Status Add(int64_t first_id, SequenceParameters parameters,
                   int n_samples = 1, absl::Time now = absl::InfinitePast());

  // Queues one that was admitted before, with the output that it had, however
  // many wait. Of its prompt, the log-probabilities of the first `n_scored`
  // tokens were reported. REQUIRES: no sequence of this id is there; the output
  // did not end it.
  void Restore(int64_t id, SequenceParameters parameters, int sample_index,
               const std::vector<int32_t>& output, int n_scored);

  // Whether a prompt may wait for so many answers.
  bool HasRoomFor(const SequenceParameters& parameters, int n_samples);

  // How long it would take to compute a prompt that comes to wait now, with
  // what is before it: a low estimate, by the steps that ran fastest. Zero
  // while none has.
  absl::Duration ExpectedWait(const SequenceParameters& parameters);

  // The next step of a pipeline, or nothing; see Lane::Schedule().
  // REQUIRES: the pipeline is there.
  std::optional<StepPlan> Schedule(int index);

  // Takes the result of the oldest step in flight of a pipeline. INTERNAL, with
  // nothing changed, when it does not answer that step: the workers cannot be
  // trusted any more. REQUIRES: the pipeline is there.
  absl::Status Complete(int index, const StepResult& result,
                        std::vector<SequenceEvent>* events);

  // Drops a sequence, without an event. False when it is not known (any more).
  bool Abort(int64_t id);

  // Ends every sequence whose deadline is not after `now`.
  std::vector<SequenceEvent> ExpireDeadlines(absl::Time now);

  // When the next deadline is; InfiniteFuture when there is none.
  absl::Time next_deadline() const;

  // Those that no pipeline that is there can hold wait aside. Ends them.
  std::vector<SequenceEvent> EndUnplaceable();
  bool has_unplaceable() const { return !unplaceable_.empty(); }

  // Null when there is no such sequence (any more).
  const Sequence* Find(int64_t id) const;

  bool has_pipeline() const { return !lanes_.empty(); }
  // Null when there is no such pipeline.
  const Lane* lane(int index) const;
  int n_sequences() const { return static_cast<int>(sequences_.size()); }
  int n_waiting() const {
    return queue_.n_waiting() + static_cast<int>(unplaceable_.size());
  }
  int n_running() const { return queue_.n_running(); }
  // Of all pipelines, lost ones included.
  Lane::Counters counters() const;

 private:
  void Enter(std::unique_ptr<Sequence> sequence);
  static bool TakeToken(const SampledToken& sampled, bool wants_logprobs,
                        Sequence* sequence, std::vector<SequenceEvent>* events);
  void AdmitWaiting();
  Lane* LaneFor(const Sequence& sequence);
  Lane* MakeRoom(const Sequence& sequence);
  Sequence* WhoMakesRoom(const Sequence& sequence, const Lane& lane) const;
  absl::Status CheckRoom(const SequenceParameters& parameters, int n_samples);
  absl::Status CheckFits(const SequenceParameters& parameters) const;
  absl::Status CheckDeadline(const SequenceParameters& parameters,
                             absl::Time now);
  bool FitsAny(const Sequence& sequence) const;
  bool TakeScores(const ScoredRow& scored, Sequence* sequence,
                  std::vector<SequenceEvent>* events);
  void Erase(Sequence* sequence);

  const Options options_;
  absl::flat_hash_map<int64_t, std::unique_ptr<Sequence>> sequences_;
  FairQueue queue_;                             // all but unplaceable_
  std::map<int, std::unique_ptr<Lane>> lanes_;  // by index
  std::set<int64_t> unplaceable_;               // wait for a larger pipeline
  std::set<std::pair<absl::Time, int64_t>> deadlines_;  // finite ones only
  Lane::Counters counters_of_lost_;
};

}  // namespace tern

#endif  // COORDINATOR_SCHEDULER_H_
