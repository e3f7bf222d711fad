#ifndef WORKER_STAGE_LINK_H_
#define WORKER_STAGE_LINK_H_

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "worker/step.h"

namespace tern {

// Carries something of each step to another stage of a pipeline, in one epoch.
class Link {
 public:
  virtual ~Link() = default;

  // Nothing follows: the link ends when all that it took is with the peer. Does
  // not wait.
  virtual void Finish() = 0;

  // Ends the link and any waiting at once, what is under way is lost. Does not
  // wait itself. Thread-safe.
  virtual void Close() = 0;
};

// Carries hidden states to the next stage.
class StageLink : public Link {
 public:
  // Takes the hidden states of a step, float [tokens, hidden_size], which are
  // the caller's again on return. Waits while too much is under way. Steps come
  // in ascending order, from one thread.
  //
  // UNAVAILABLE when the next stage cannot be reached or takes nothing for too
  // long; what it answered when it refused; CANCELLED after Close().
  virtual absl::Status Send(int64_t step_id,
                            absl::Span<const float> hidden) = 0;
};

// Carries the tokens that the last of several stages samples to the first.
class TokenLink : public Link {
 public:
  // Takes the tokens of a step; for the rest see StageLink::Send().
  virtual absl::Status Send(int64_t step_id,
                            absl::Span<const SampledToken> sampled) = 0;
};

// Where a stage sends what others need of it.
struct OutgoingLinks {
  std::shared_ptr<StageLink> next;   // null for the last stage
  std::shared_ptr<TokenLink> first;  // null for all but the last of several
};

}  // namespace tern

#endif  // WORKER_STAGE_LINK_H_
