#ifndef COORDINATOR_TESTING_TOY_MODEL_H_
#define COORDINATOR_TESTING_TOY_MODEL_H_

#include <cstdint>
#include <map>
#include <set>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "coordinator/step_plan.h"

namespace tern {

// The toy model's next token: a hash of the whole history and the seed, in
// [0, vocab_size). Whoever loses, repeats or reorders one token of a history
// gets other tokens from there on. An even seed's text is of three tokens, so
// that it can often be guessed.
int32_t ToyNextToken(absl::Span<const int32_t> history, uint64_t seed,
                     int vocab_size);

// What the toy model answers to `prompt`, `n` tokens long.
std::vector<int32_t> ToyAnswer(std::vector<int32_t> prompt, uint64_t seed,
                               int n, int vocab_size);

// The toy model's log-probability of `token` after `history`, a whole number.
float ToyLogprob(absl::Span<const int32_t> history, int32_t token);

// What it thinks of the tokens of `prompt` from the second on.
std::vector<float> ToyScores(absl::Span<const int32_t> prompt);

// A worker of a pipeline, or all of them as if they were one, made of the toy
// model: executes plans as a real stage would and refuses every plan that
// breaks the rules of worker.proto.
class ToyWorker {
 public:
  // `max_step_tokens` of a step and `n_blocks` blocks of `block_size` tokens
  // are what LoadStage was told.
  ToyWorker(int n_blocks, int block_size, int max_step_tokens, int vocab_size,
            int stage = 0);

  // A new epoch that keeps what the blocks hold.
  void StartAnew();

  // Runs the next plan. INVALID_ARGUMENT names the rule that it breaks.
  absl::Status Run(const StepPlan& plan, StepResult* result);

  int n_sequences() const { return static_cast<int>(sequences_.size()); }
  int n_blocks_in_use() const { return n_blocks_in_use_; }
  // Positions that rows computed, and that they took over from others.
  int64_t n_computed() const { return n_computed_; }
  int64_t n_taken_over() const { return n_taken_over_; }
  int64_t n_steps() const { return last_step_id_; }
  // Guesses that rows had, and those that came true.
  int64_t n_drafts() const { return n_drafts_; }
  int64_t n_drafts_true() const { return n_drafts_true_; }

 private:
  struct State {
    uint64_t seed = 0;
    int prompt_logprobs = 0;
    std::map<int64_t, int32_t> sampled;  // by step
    std::vector<int32_t> history;        // as computed into the cache
    int n_drafts = 0;                    // of it, the last
    std::vector<int> block_ids;
    size_t n_positions_ever = 0;
  };
  struct Block {
    int n_users = 0;
    // The text up to the block's end, once it is full.
    std::vector<int32_t> text;
  };

  absl::Status TakeOver(const StepRow& row, int n_blocks, State* state);
  absl::Status CheckRefill(const StepRow& row) const;
  void DropDrafts(int position, State* state);
  void Sample(const StepRow& row, int64_t step_id, State* state,
              StepResult* result);
  static absl::Status Score(const StepRow& row, int n_tokens,
                            const State& state, ScoredRow* scored);

  const int block_size_;
  const int max_step_tokens_;
  const int vocab_size_;
  const int stage_;
  int64_t last_step_id_ = 0;
  std::map<int64_t, State> sequences_;
  std::set<int64_t> run_ids_seen_;
  std::vector<Block> blocks_;
  int n_blocks_in_use_ = 0;
  int64_t n_computed_ = 0;
  int64_t n_taken_over_ = 0;
  int64_t n_drafts_ = 0;
  int64_t n_drafts_true_ = 0;
};

}  // namespace tern

#endif  // COORDINATOR_TESTING_TOY_MODEL_H_
