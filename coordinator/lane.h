#ifndef COORDINATOR_LANE_H_
#define COORDINATOR_LANE_H_

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "coordinator/block_manager.h"
#include "coordinator/draft_choice.h"
#include "coordinator/fair_queue.h"
#include "coordinator/sequence.h"
#include "coordinator/step_cost.h"
#include "coordinator/step_plan.h"

namespace tern {

// What runs on one pipeline, and what each of its steps runs: continuous
// batching with chunked prefill.
//
// A step takes the decode rows first, an even share of all decoding sequences
// for each micro-batch in flight, then prefill up to `max_step_tokens`; while
// others decode, prefill takes what fits `max_step_stretch` times the time of
// the step without it, so that prompts do not hold the decoding up; streams
// that a lost pipeline interrupted are not held back so. Tenants take turns in
// prefill, too. Blocks are allocated when a row needs them, or taken over from
// others whose text begins alike. When none is free, a sequence of lower rank
// is pre-empted: it gives up its blocks and waits, and is later replayed from
// its token log as prefill. The sequence of the highest rank is never
// pre-empted, and every admitted sequence fits the pool alone, so there is
// always progress.
//
// Borrows sequences, which tell in `pipeline` that they are here, and the queue
// that the pre-empted go back to. Pure; not thread-safe.
class Lane {
 public:
  struct Options {
    // Most tokens of one step, prefill and decode together. At least 1.
    int max_step_tokens = 512;
    // Most sequences that hold KV blocks. At least 1.
    int max_sequences = 64;
    // While others decode, how much longer a step may be for the prompts in it:
    // 2 is twice as long. At least 1.
    double max_step_stretch = 2;
    // Prompt tokens that a step takes while others decode, however long that
    // is. At least 1.
    int min_prefill_tokens = 8;
    // Whether texts that begin alike share KV blocks.
    bool prefix_cache = true;
    // Most guesses at its next tokens that a decoding sequence has checked in a
    // step; see ChooseDrafts(). 0 for none.
    int max_draft_tokens = 0;
    // Whether guesses are checked even where they are not worth their time.
    bool always_drafts = false;
    // From a step's end to the next one's beginning when that is not planned
    // ahead, which steps with guesses cannot be.
    absl::Duration turnaround = absl::Milliseconds(1);
  };

  // The pipeline that plans are made for.
  struct Capacity {
    int n_blocks = 0;
    int block_size = 16;
    // Micro-batches that decoding sequences are shared out to: the number of
    // stages. As many steps are in flight.
    int n_micro_batches = 1;
    // Whether one more step is, planned ahead: of rows whose token the oldest
    // step in flight samples.
    bool looks_ahead = false;
  };

  // What it has done.
  struct Counters {
    int64_t preemptions = 0;
    // Tokens of sequences that began to run, and those of them whose blocks
    // were there.
    int64_t looked_up_tokens = 0;
    int64_t found_tokens = 0;
    // Guesses at tokens, and those of them that came true.
    int64_t drafted_tokens = 0;
    int64_t accepted_draft_tokens = 0;
    // Tokens that only those stages computed that had lost them.
    int64_t refilled_tokens = 0;
  };

  // A row of a step that is not answered yet.
  struct InFlightRow {
    int64_t id;  // of the sequence, which may have ended
    int64_t run_id;
    int position_sampled;  // of the token to come; -1 when the row samples none
    bool wants_logprobs;
    std::vector<int32_t> drafts;  // guesses at the tokens to come
    int n_sampled = 0;            // tokens that came, once answered
    int position_scored = 0;      // of the first token that it scores
    int n_scored = 0;             // how many it does
  };

  // index:  the `pipeline` of its sequences.
  // blocks: as many as `capacity` says, none in use, with what the workers kept
  //         of an earlier pipeline.
  Lane(int index, const Options& options, const Capacity& capacity,
       FairQueue* queue, BlockManager blocks);

  // Whether the pool is large enough for so many positions.
  bool CanHold(int64_t n_positions) const;

  // Whether the sequence can be taken in now: a place is free, and blocks for
  // its whole log, the next token, and one more for each that runs: admitting
  // more would only lead to pre-emption.
  bool HasRoomFor(const Sequence& sequence);

  // Of a text, the tokens whose blocks are there.
  int CachedTokens(const SequenceParameters& parameters,
                   absl::Span<const int32_t> tokens);

  // Tokens to compute before the next one of a text would be sampled here: its
  // own that are not cached, those of all prompts before it, and a token for
  // each that decodes.
  int64_t TokensAhead(const SequenceParameters& parameters,
                      absl::Span<const int32_t> tokens);

  // Takes in a waiting sequence, or lets a running one go.
  void Take(Sequence* sequence);
  void Release(Sequence* sequence);

  // Release(), and back to the queue.
  void Preempt(Sequence* sequence);

  // The next step, or nothing while enough are in flight or there is nothing to
  // run. A plan without rows tells idle workers to free what nobody needs any
  // more.
  std::optional<StepPlan> Schedule();

  // The oldest step in flight, when `result` answers it; INTERNAL otherwise,
  // with nothing changed.
  absl::Status TakeAnswered(const StepResult& result,
                            std::vector<InFlightRow>* rows);

  // `sequence`, whose row was answered, has all its tokens and goes on: those
  // of its guesses that came true are computed already. REQUIRES: the row has
  // guesses.
  void TakeDrafts(const InFlightRow& row, Sequence* sequence);

  // By rank.
  const std::set<std::pair<Sequence::Rank, Sequence*>>& running() const {
    return running_;
  }
  // The blocks, with what is certain to be in them: the workers are gone, and
  // so is this lane. REQUIRES: nothing runs.
  BlockManager GiveUpBlocks();

  // Ids of those whose steps are in flight; some may have ended.
  std::vector<int64_t> InFlight() const;

  // How long the oldest step in flight should keep its slowest stage busy; zero
  // when nothing is in flight, or while nothing is known.
  absl::Duration ExpectedTime() const;

  // Takes in nothing more, not even what it pre-empts.
  void Close() { is_closed_ = true; }
  bool is_closed() const { return is_closed_; }

  int index() const { return index_; }
  int n_running() const { return static_cast<int>(running_.size()); }
  int n_in_flight() const { return static_cast<int>(in_flight_.size()); }
  bool CanSchedule() const {
    return n_in_flight() <
           capacity_.n_micro_batches + (capacity_.looks_ahead ? 1 : 0);
  }
  const BlockManager& blocks() const { return blocks_; }
  const StepCost& cost() const { return cost_; }
  const Counters& counters() const { return counters_; }

 private:
  struct InFlightStep {
    int64_t step_id;
    std::vector<InFlightRow> rows;
    int n_tokens = 0;
  };

  // Whether the sequence may have a row in the step being planned although it
  // has one in flight; and whether one whose token that one samples.
  bool MayPlanAhead(const Sequence& sequence) const;
  bool MayLookAhead(const Sequence& sequence) const;

  void ServeHighestRank();
  // ahead: also for those that may look ahead.
  void AddDecodeRows(bool ahead, StepPlan* plan);
  void AddDrafts(StepPlan* plan);
  bool AwaitsDrafts();
  void AddPrefillRows(StepPlan* plan);
  void AddRow(Sequence* sequence, int n_tokens, StepPlan* plan);
  void SendBlocks(Sequence* sequence, int n_positions, StepRow* row);

  static absl::Status CheckSampled(const StepResult& result, size_t i,
                                   const InFlightRow& row);
  static int AddScoredTokens(const Sequence& sequence, StepRow* row);
  absl::Status CheckScored(const StepResult& result) const;

  struct Cached {
    int n_tokens = 0;
    int n_blocks_in_use = 0;  // of them by running sequences
  };
  Cached LookUp(const SequenceParameters& parameters,
                absl::Span<const int32_t> tokens);
  bool TakeOverBlocks(Sequence* sequence);
  std::vector<BlockManager::Known> LostBlocksOf(const Sequence& sequence,
                                                int n_most) const;
  void AddRefillRow(Sequence* sequence,
                    const std::vector<BlockManager::Known>& lost,
                    StepPlan* plan);
  void PublishBlocks(Sequence* sequence, int64_t step_id);

  bool TryAllocate(Sequence* sequence, int n_positions);
  Sequence* Victim(const Sequence& sequence) const;
  int BlocksPromised() const;
  int64_t PrefillTokensWaiting() const;
  int PrefillBudget() const;

  const int index_;
  const Options options_;
  const Capacity capacity_;
  FairQueue* const queue_;
  BlockManager blocks_;
  std::set<std::pair<Sequence::Rank, Sequence*>> running_;
  std::deque<InFlightStep> in_flight_;     // oldest first
  std::vector<int64_t> released_run_ids_;  // for the next plan
  int64_t last_run_id_ = 0;
  int64_t last_step_id_ = 0;
  Counters counters_;
  bool is_closed_ = false;

  StepCost cost_;
  DraftChooser draft_chooser_;

  int step_tokens_ = 0;  // of the plan being made
};

}  // namespace tern

#endif  // COORDINATOR_LANE_H_
