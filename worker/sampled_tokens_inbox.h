#ifndef WORKER_SAMPLED_TOKENS_INBOX_H_
#define WORKER_SAMPLED_TOKENS_INBOX_H_

#include <cstdint>
#include <functional>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "worker/step.h"
#include "worker/transfer_inbox.h"

namespace tern {

// What was sampled in a step.
struct StepTokens {
  int64_t step_id;
  std::vector<SequenceToken> tokens;
};

// The tokens that the last of several stages samples in one epoch, for the
// first one's runner, which takes them before each of its steps: no more wait
// than there are steps under way.
//
// Holds a bounded number of steps: when full it takes none, and the stream that
// brings them is not read until there is room. Thread-safe.
class SampledTokensInbox : public TransferInbox {
 public:
  struct Options {
    int vocab_size = 0;
    int max_step_tokens = 0;
    // Steps that wait for the runner; must be > 0.
    int waiting_steps_max = 64;
  };

  explicit SampledTokensInbox(const Options& options);

  // Adds the tokens of the next step. True when they were taken; false when the
  // inbox is full: then `on_room` is called once, from another thread, when the
  // same ones should be offered again. DATA_LOSS when the step, a token or
  // their number does not fit; the status given to Close() after that.
  absl::StatusOr<bool> Offer(const StepTokens& step,
                             std::function<void()> on_room)
      ABSL_LOCKS_EXCLUDED(mu_);

  // Waits until the tokens of step `step_id`, or of a later one, are there (0:
  // does not wait), and moves all that are into *steps, by ascending step id.
  //
  // UNAVAILABLE when they do not come within `timeout`, or when the sender has
  // gone; the status given to Close() after that.
  absl::Status Take(int64_t step_id, absl::Duration timeout,
                    std::vector<StepTokens>* steps) ABSL_LOCKS_EXCLUDED(mu_);

 private:
  absl::Status Check(const StepTokens& step) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const Options options_;
  std::vector<StepTokens> waiting_ ABSL_GUARDED_BY(mu_);
  int64_t last_step_id_ ABSL_GUARDED_BY(mu_) = 0;  // received
};

}  // namespace tern

#endif  // WORKER_SAMPLED_TOKENS_INBOX_H_
