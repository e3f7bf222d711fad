#ifndef WORKER_STAGE_LINK_H_
#define WORKER_STAGE_LINK_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/types/span.h"

namespace tern {

// Carries hidden states to the next stage of a pipeline, in one epoch.
class StageLink {
 public:
  virtual ~StageLink() = default;

  // Takes the hidden states of a step, float [tokens, hidden_size], which are
  // the caller's again on return. Waits while too much is under way. Steps come
  // in ascending order, from one thread.
  //
  // UNAVAILABLE when the next stage cannot be reached or takes nothing for too
  // long; what it answered when it refused; CANCELLED after Close().
  virtual absl::Status Send(int64_t step_id,
                            absl::Span<const float> hidden) = 0;

  // Nothing follows: the link ends when all that it took is with the peer. Does
  // not wait.
  virtual void Finish() = 0;

  // Ends the link and any waiting at once, what is under way is lost. Does not
  // wait itself. Thread-safe.
  virtual void Close() = 0;
};

}  // namespace tern

#endif  // WORKER_STAGE_LINK_H_
