#ifndef COORDINATOR_SEQUENCE_H_
#define COORDINATOR_SEQUENCE_H_

#include <cstdint>
#include <tuple>
#include <vector>

#include "absl/time/time.h"
#include "coordinator/step_plan.h"

namespace tern {

// Interactive sequences are scheduled before those of a batch.
enum class SequenceClass { kInteractive = 0, kBatch = 1 };

enum class FinishReason { kStop, kLength };

// What a sequence starts from, checked, with every default filled in.
struct SequenceParameters {
  std::vector<int32_t> prompt;  // at least one token
  SamplerParameters sampler;
  // Ids that end the sequence: the model's own unless ignored, and the
  // request's.
  std::vector<int32_t> stop_token_ids;
  // At least 1. Prompt and output together fit the context length.
  int max_output_tokens = 1;
  // Stop tokens do not come before so many tokens of output.
  int min_output_tokens = 0;
  SequenceClass sequence_class = SequenceClass::kInteractive;
  int priority = 0;  // higher first
  absl::Time deadline = absl::InfiniteFuture();
};

// One answer being written: the token log, which alone says how to go on, and
// where its execution stands. A plain value; the scheduler keeps it consistent.
struct Sequence {
  // In the order of scheduling: class, priority, arrival. Unique.
  using Rank = std::tuple<SequenceClass, int, int64_t>;

  Sequence(int64_t id, SequenceParameters parameters);

  Rank rank() const {
    return {parameters.sequence_class, -parameters.priority, id};
  }

  // Prompt and output so far.
  int n_tokens() const { return static_cast<int>(tokens.size()); }
  int n_output() const { return n_tokens() - n_prompt; }

  // Tokens that are not in the KV cache yet. 0 while the next one is awaited.
  int n_pending() const { return n_tokens() - n_computed; }

  // Whether the next row is one token, or the next token is awaited.
  bool IsDecoding() const { return n_pending() <= 1; }

  // KV positions that the sequence takes at its longest: the last token of an
  // answer is never computed.
  int n_positions_max() const {
    return n_prompt + parameters.max_output_tokens - 1;
  }

  // Appends a sampled token and says whether it ended the sequence, and why.
  struct Ending {
    bool ended = false;
    FinishReason reason = FinishReason::kStop;
    int32_t stop_token_id = -1;  // the token, when it is a stop token
  };
  Ending Append(int32_t token);

  const int64_t id;  // order of arrival; never changes
  const SequenceParameters parameters;
  const int n_prompt;

  // Prompt, then output.
  std::vector<int32_t> tokens;

  // The name workers know the sequence by, a fresh one for each replay; 0 while
  // they do not know it.
  int64_t run_id = 0;

  // Tokens whose keys and values are in the cache, or will be when the step in
  // flight has run.
  int n_computed = 0;
  std::vector<int> block_ids;
  int n_blocks_sent = 0;  // how many of them the workers know of

  // Step whose result is awaited; 0 when none is. Stays set when the sequence
  // is pre-empted meanwhile: the token still counts.
  int64_t in_flight_step_id = 0;

  // Last step it had a row in; for turns between sequences.
  int64_t last_step_id = 0;
};

}  // namespace tern

#endif  // COORDINATOR_SEQUENCE_H_
