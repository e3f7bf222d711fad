#ifndef COORDINATOR_TOKEN_STREAM_H_
#define COORDINATOR_TOKEN_STREAM_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "coordinator/sequence.h"
#include "coordinator/step_plan.h"

namespace tern {

// How a sequence ended.
struct SequenceEnd {
  absl::Status status;  // OK when it was answered, and then `reason` counts
  FinishReason reason = FinishReason::kStop;
  int32_t stop_token_id = -1;  // the token that stopped it, if one did
  int n_prompt_cached = 0;     // prompt tokens that were not computed
  // Set when it was refused because too many are in progress, which passes: in
  // about that time.
  std::optional<absl::Duration> retry_after = {};
};

// From the token at this place on a sequence is computed with another
// arithmetic than before.
struct NumericsChange {
  int n_tokens = 0;  // before
  std::string numerics_id;
};

// Carries the tokens of one sequence from the engine to whoever answers it.
//
// The engine never waits for a slow reader: what is not taken yet piles up, at
// most `max_output_tokens` of the request, four bytes each, and the
// log-probabilities that were asked for, of the prompt too; it is taken at
// once. Thread-safe.
class TokenStream {
 public:
  // `wake` is called, on the engine thread and outside of locks, when there is
  // something to take for a reader that has taken everything before. It must
  // not block.
  explicit TokenStream(std::function<void()> wake) : wake_(std::move(wake)) {}

  // The engine's side. Nothing comes after an end.
  void Admit(std::string numerics_id) ABSL_LOCKS_EXCLUDED(mu_);
  // Of the prompt's next tokens; all come before the first token of output.
  void PushPrompt(std::vector<TokenLogprobs> logprobs) ABSL_LOCKS_EXCLUDED(mu_);
  void Push(int32_t token, std::optional<TokenLogprobs> logprobs = {})
      ABSL_LOCKS_EXCLUDED(mu_);
  // What comes is of another arithmetic than what came.
  void ChangeNumerics(std::string numerics_id) ABSL_LOCKS_EXCLUDED(mu_);
  void End(SequenceEnd end) ABSL_LOCKS_EXCLUDED(mu_);
  // The last token and the end with it, so that the reader takes both at once.
  void PushAndEnd(int32_t token, SequenceEnd end,
                  std::optional<TokenLogprobs> logprobs = {})
      ABSL_LOCKS_EXCLUDED(mu_);

  // Ends it for its reader, on any thread: what the engine's side still brings
  // is dropped.
  void Cut(SequenceEnd end) ABSL_LOCKS_EXCLUDED(mu_);

  // What has come since the last call; `*taken` is overwritten, and its memory
  // used for what comes next.
  struct Taken {
    bool admitted = false;    // at any time so far
    std::string numerics_id;  // of the pipeline it was admitted to
    std::vector<TokenLogprobs> prompt_logprobs;
    std::vector<int32_t> tokens;
    std::vector<TokenLogprobs> logprobs;  // one per token, or none at all
    // Counted from the first of `tokens`.
    std::vector<NumericsChange> numerics_changes;
    std::optional<SequenceEnd> end;  // once
  };
  void Take(Taken* taken) ABSL_LOCKS_EXCLUDED(mu_);

  // All of it at once, as another stream of the sequence has it.
  void PushAll(Taken taken) ABSL_LOCKS_EXCLUDED(mu_);

 private:
  static void Append(int32_t token, std::optional<TokenLogprobs> logprobs,
                     Taken* pending);

  // Applies `change` under the lock, then wakes the reader where needed.
  template <typename Change>
  void Update(Change change) ABSL_LOCKS_EXCLUDED(mu_);

  const std::function<void()> wake_;
  absl::Mutex mu_;
  Taken pending_ ABSL_GUARDED_BY(mu_);
  bool ended_ ABSL_GUARDED_BY(mu_) = false;
  bool cut_ ABSL_GUARDED_BY(mu_) = false;
  bool woken_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace tern

#endif  // COORDINATOR_TOKEN_STREAM_H_
