#ifndef WORKER_HIDDEN_STATES_INBOX_H_
#define WORKER_HIDDEN_STATES_INBOX_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "worker/transfer_inbox.h"

namespace tern {

// A slice of the hidden states of one step, as received.
struct HiddenStatesSlice {
  int64_t step_id;
  int64_t n_tokens;      // of the whole tensor
  int64_t hidden_size;   // of the whole tensor
  int64_t offset_bytes;  // where `data` starts in it
  int64_t total_bytes;
  uint32_t crc32c;  // of `data`
  absl::Span<const char> data;
};

// The hidden states that the stage before sends in one epoch, put together from
// slices and handed to the runner step by step.
//
// Holds a bounded number of steps: when full it takes no slice, and the stream
// that brings them is not read until there is room. Thread-safe.
class HiddenStatesInbox : public TransferInbox {
 public:
  struct Options {
    int hidden_size = 0;
    int max_step_tokens = 0;
    // Whole tensors that wait for the runner; must be > 0.
    int waiting_steps_max = 4;
  };

  explicit HiddenStatesInbox(const Options& options);

  // Adds the next slice. True when it was taken; false when the inbox is full:
  // then `on_room` is called once, from another thread, when the same slice
  // should be offered again. DATA_LOSS when its checksum, its size or its place
  // does not fit; the status given to Close() after that.
  absl::StatusOr<bool> Offer(const HiddenStatesSlice& slice,
                             std::function<void()> on_room)
      ABSL_LOCKS_EXCLUDED(mu_);

  // Waits for the hidden states of a step and swaps them into *hidden:
  // [n_tokens, hidden_size]. Those of earlier steps are dropped.
  //
  // UNAVAILABLE when they do not come within `timeout`, or when the sender has
  // gone; DATA_LOSS when a later step's, or another number of tokens came; the
  // status given to Close() after that.
  absl::Status Take(int64_t step_id, int n_tokens, absl::Duration timeout,
                    std::vector<float>* hidden) ABSL_LOCKS_EXCLUDED(mu_);

 private:
  struct Tensor {
    int64_t step_id = 0;
    std::vector<float> values;
  };

  absl::Status Check(const HiddenStatesSlice& slice) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool SomethingForRunner() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return !ready_.empty() || ended_ || !closed_.ok();
  }
  // Frees the oldest tensor's place.
  void PopReady() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const Options options_;

  // The tensor being put together; begun when filled_bytes_ > 0.
  Tensor partial_ ABSL_GUARDED_BY(mu_);
  size_t filled_bytes_ ABSL_GUARDED_BY(mu_) = 0;
  std::deque<Tensor> ready_ ABSL_GUARDED_BY(mu_);  // by ascending step id
  int64_t last_step_id_ ABSL_GUARDED_BY(mu_) = 0;  // begun or received
  // Buffers to use again.
  std::vector<std::vector<float>> spare_ ABSL_GUARDED_BY(mu_);
};

}  // namespace tern

#endif  // WORKER_HIDDEN_STATES_INBOX_H_
