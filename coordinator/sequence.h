#ifndef COORDINATOR_SEQUENCE_H_
#define COORDINATOR_SEQUENCE_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "coordinator/block_manager.h"
#include "coordinator/prompt_lookup.h"
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
  // Who asks: tenants get even shares, and never share KV blocks.
  std::string tenant;
};

// One answer being written: the token log, which alone says how to go on, and
// where its execution stands. A plain value; the scheduler keeps it consistent.
struct Sequence {
  // How urgent it is: class, then priority. Lower is more urgent.
  using Level = std::pair<SequenceClass, int>;
  // Level, then arrival. Unique.
  using Rank = std::pair<Level, int64_t>;

  Sequence(int64_t id, SequenceParameters parameters);

  Level level() const {
    return {parameters.sequence_class, -parameters.priority};
  }
  Rank rank() const { return {level(), id}; }

  // Prompt and output so far.
  int n_tokens() const { return static_cast<int>(tokens.size()); }
  int n_output() const { return n_tokens() - n_prompt; }

  // Tokens that are not in the KV cache yet. 0 while the next one is awaited;
  // -1 while the row that computes that one is in flight, too.
  int n_pending() const { return n_tokens() - n_computed; }

  // Tokens, from the first on, that need not be computed where blocks of others
  // hold their keys and values: what comes after the next one is to be
  // predicted, or that one itself is still to be scored.
  int n_reusable() const {
    return (n_scored < n_prompt ? n_scored : n_tokens()) - 1;
  }

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

  // Of a row's guesses at its next tokens the first so many came true. Without
  // guesses, because they were too unlikely, they slowly get another chance.
  void ObserveDrafts(int n_drafts, int n_true);

  const int64_t id;  // order of arrival; never changes
  const SequenceParameters parameters;
  const int n_prompt;

  // Prompt, then output.
  std::vector<int32_t> tokens;

  // Tokens of the prompt, from the first on, whose log-probabilities were
  // reported: the first has none. All of them where none are wanted.
  int n_scored;

  // Whether its pipeline was lost and no token has come since: its caller sees
  // it stand still.
  bool is_interrupted = false;

  // Where it runs; -1 while it waits.
  int pipeline = -1;

  // The name workers know the sequence by, a fresh one for each run; 0 while it
  // waits.
  int64_t run_id = 0;
  bool is_open = false;  // whether workers have heard of this run

  // Tokens whose keys and values are in the cache, or will be when the step in
  // flight has run.
  int n_computed = 0;
  std::vector<int> block_ids;
  int n_blocks_sent = 0;  // how many of them the workers know of

  // Of the blocks held, the first so many have a known content, and the text
  // that they hold has this name.
  int n_blocks_known = 0;
  BlockManager::PrefixId prefix = 0;

  // Of the blocks not sent yet, the first so many were filled by others.
  int n_blocks_taken_over = 0;

  // Prompt tokens that the first run did not have to compute.
  int n_prompt_cached = 0;
  int n_computed_ever = 0;  // n_computed at its highest, of any run

  // The latest step that it has a row in and whose result is awaited; 0 when
  // there is none. Stays set when the sequence is pre-empted meanwhile: the
  // token still counts.
  int64_t in_flight_step_id = 0;
  int n_in_flight = 0;            // such steps: 2 when one was planned ahead
  bool drafts_in_flight = false;  // whether the latest of them has guesses

  // Last step of this run that it had a row in; for turns between sequences.
  int64_t last_step_id = 0;

  // Guesses at the next tokens, and how likely one is to come true if those
  // before it did, in (0, 1).
  PromptLookup lookup;
  double draft_chance = kFirstDraftChance;

  static constexpr double kFirstDraftChance = 0.5;
};

}  // namespace tern

#endif  // COORDINATOR_SEQUENCE_H_
