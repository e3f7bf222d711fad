#ifndef COORDINATOR_STEP_PLAN_H_
#define COORDINATOR_STEP_PLAN_H_

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace tern {

// What the engine tells a pipeline and hears from it: the plain-struct twins of
// the messages in proto/tern/v1/worker.proto, which says what each field means.
// `model`, `pipeline_id`, `epoch` and `numerics_id` belong to the Pipeline that
// carries them.

// How tokens are chosen, every default filled in.
struct SamplerParameters {
  float temperature = 1;  // 0 is greedy
  int top_k = 0;          // 0 keeps all
  float top_p = 1;
  float min_p = 0;
  uint64_t seed = 0;
  int sample_index = 0;
  float repetition_penalty = 1;
  float frequency_penalty = 0;
  float presence_penalty = 0;
  std::vector<std::pair<int32_t, float>> logit_bias;  // by token id, ascending
  int logprobs = -1;         // alternatives beside each token's; -1 for neither
  int prompt_logprobs = -1;  // the same of the prompt's tokens

  // Whether earlier tokens have a say in the choice of the next one, beyond
  // what they do to the logits.
  bool NeedsHistory() const {
    return repetition_penalty != 1 || frequency_penalty != 0 ||
           presence_penalty != 0;
  }
};

// Opens a sequence on the workers.
struct SequenceSetup {
  int64_t run_id = 0;  // `sequence_id` on the wire; see Sequence::run_id
  SamplerParameters sampler;
  std::vector<int32_t> stop_token_ids;
  int min_output_tokens = 0;
  int prompt_token_count = 0;
};

// Stages [begin, end) of a pipeline.
struct StageSpan {
  int begin = 0;
  int end = 0;

  bool empty() const { return begin == end; }
  friend bool operator==(const StageSpan& a, const StageSpan& b) {
    return a.begin == b.begin && a.end == b.end;
  }
};

// A run of consecutive tokens of one sequence.
struct StepRow {
  int64_t run_id = 0;
  int position = 0;  // of the first token
  std::vector<int32_t> tokens;
  // If not 0, `tokens` is empty and the row has one: what the sequence samples
  // in that step.
  int64_t sampled_in_step_id = 0;
  // Of `tokens`, the last so many are guesses at what comes after the others.
  int n_drafts = 0;
  std::vector<int> new_block_ids;
  // Of new_block_ids, the first so many hold keys and values already, which
  // other sequences computed: the row starts behind them.
  int n_taken_over_blocks = 0;
  // The tokens in those blocks, for samplers that need the whole text.
  std::vector<int32_t> taken_over_tokens;
  bool samples = false;
  // Tokens of the prompt whose log-probabilities are wanted: those at the last
  // so many places up to the one behind the row, or to its last token where it
  // samples.
  std::vector<int32_t> scored_tokens;
  // Not empty in a row that fills blocks again which only these stages have
  // lost: all of new_block_ids that are not taken over. Nobody else computes
  // it, and it samples nothing.
  StageSpan computing_stages;

  int n_tokens() const {
    return sampled_in_step_id > 0 ? 1 : static_cast<int>(tokens.size());
  }
};

// One micro-batch and what the stages free and open before it.
struct StepPlan {
  int64_t step_id = 0;  // from 1 in each epoch, without gaps
  std::vector<int64_t> released_run_ids;
  std::vector<SequenceSetup> new_sequences;
  std::vector<StepRow> rows;
};

// What the model thought of a token.
struct TokenLogprobs {
  float logprob = 0;
  // Ids and logarithms, the likeliest first.
  std::vector<std::pair<int32_t, float>> alternatives;
};

// A token chosen by the last stage, or why there is none.
struct SampledToken {
  int64_t run_id = 0;
  int position = 0;
  int32_t token_id = -1;
  absl::Status status;
  std::optional<TokenLogprobs> logprobs;  // when asked for
};

// The log-probabilities of a row's `scored_tokens`, or why there are none.
struct ScoredRow {
  int64_t run_id = 0;
  int position = 0;  // of the first of them
  std::vector<TokenLogprobs> tokens;
  absl::Status status;
};

// All stages have finished a step.
struct StepResult {
  int64_t step_id = 0;
  // Of each sampling row, in order: one, and one more for each guess of the
  // row that came true.
  std::vector<SampledToken> sampled;
  std::vector<ScoredRow> scored;  // one per row with scored tokens, in order
  // What the stage that computed longest took; zero when not known.
  absl::Duration busy;
};

}  // namespace tern

#endif  // COORDINATOR_STEP_PLAN_H_
