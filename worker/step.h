#ifndef WORKER_STEP_H_
#define WORKER_STEP_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/optional.h"
#include "worker/sampler.h"

namespace tern {

// What the runner executes, in plain values: proto/tern/v1/worker.proto with
// every number checked (worker/step_proto.h).

// A sequence that appears for the first time.
struct SequenceSetup {
  int64_t sequence_id;
  SamplerParams sampler;
};

// A run of consecutive tokens of one sequence.
struct StepRow {
  int64_t sequence_id;
  int32_t position;             // of the first token
  std::vector<int32_t> tokens;  // at least one
  std::vector<int32_t> new_block_ids;
  bool samples;  // whether the last stage samples after the last token
  // Of new_block_ids, the first so many are taken over, full, from others.
  int32_t taken_over_block_count = 0;
  std::vector<int32_t> taken_over_tokens = {};  // in them, or empty: not told
  // If not 0, `tokens` has one that is to be replaced by what the sequence
  // samples in that step.
  int64_t sampled_in_step_id = 0;
  // Of `tokens`, the last so many are guesses at what comes after the others.
  int32_t draft_count = 0;
  // The tokens at the last so many places up to the one behind the row, or up
  // to its last token where it samples, whose log-probabilities are wanted.
  std::vector<int32_t> scored_tokens = {};
  // Stages [begin, end) compute the row; end is 0 where all do. To the others
  // all of its blocks are full.
  int32_t computing_begin = 0;
  int32_t computing_end = 0;

  bool IsComputedBy(int stage) const {
    return computing_end == 0 ||
           (stage >= computing_begin && stage < computing_end);
  }
};

// One step of a pipeline.
struct StepPlan {
  int64_t step_id;
  std::vector<int64_t> released_sequence_ids;
  std::vector<SequenceSetup> new_sequences;
  std::vector<StepRow> rows;
};

// A token chosen by the last stage.
struct SampledToken {
  int64_t sequence_id;
  int32_t position;                             // that it will take
  int32_t token_id;                             // -1 when the row failed
  absl::Status status;                          // why it failed
  absl::optional<TokenLogprobs> logprobs = {};  // when asked for
};

// The log-probabilities of a row's `scored_tokens`.
struct ScoredRow {
  int64_t sequence_id;
  int32_t position;                   // of the first of them
  std::vector<TokenLogprobs> tokens;  // none when the row failed
  absl::Status status;                // why it failed
};

// A token that a sequence sampled, as the last stage tells the first.
struct SequenceToken {
  int64_t sequence_id;
  int32_t token_id;  // -1 when the row failed
};

// What a stage has to say about a step.
struct StepResult {
  int64_t step_id;
  std::vector<SampledToken> sampled;
  std::vector<ScoredRow> scored;  // of each row with any, in order
  int64_t compute_ns;
  int64_t wait_ns;
  int32_t blocks_in_use;
};

}  // namespace tern

#endif  // WORKER_STEP_H_
