#ifndef WORKER_STEP_MAILBOX_H_
#define WORKER_STEP_MAILBOX_H_

#include <cstddef>
#include <deque>
#include <functional>
#include <memory>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/optional.h"
#include "worker/step.h"

namespace tern {

// Takes what the runner has to say to the stream of plans. Called from the
// runner thread; must not wait.
class StepSink {
 public:
  virtual ~StepSink() = default;
  virtual void OnResult(StepResult result) = 0;
  // Nothing comes after it.
  virtual void OnEnd(absl::Status status) = 0;
};

// Where the stream of plans of one epoch meets the runner: a bounded queue with
// two ways to end. Thread-safe.
class StepMailbox {
 public:
  // interrupt: called by the first Abort(), with its status; ends whatever the
  //            runner waits for outside of the mailbox. Must not wait.
  StepMailbox(size_t capacity, std::function<void(absl::Status)> interrupt);

  // Claims the mailbox for a stream. ALREADY_EXISTS for a second one, ever;
  // the status of Abort() after that.
  absl::Status Attach(std::shared_ptr<StepSink> sink) ABSL_LOCKS_EXCLUDED(mu_);

  // Adds a plan. RESOURCE_EXHAUSTED when full; the status of Abort() after
  // that.
  absl::Status Push(StepPlan plan) ABSL_LOCKS_EXCLUDED(mu_);

  // No plan follows: the runner ends when it has run those that are inside.
  void End() ABSL_LOCKS_EXCLUDED(mu_);

  // Drops the plans inside and ends the runner as soon as possible, whatever it
  // waits for. The first call counts. REQUIRES: !status.ok().
  void Abort(absl::Status status) ABSL_LOCKS_EXCLUDED(mu_);

  // For the runner, when it has run all: refuses what still comes, without
  // interrupting anything. No-op after Abort().
  void Close(absl::Status status) ABSL_LOCKS_EXCLUDED(mu_);

  // For the runner: waits for the next plan. Nothing at the end; the status of
  // Abort().
  absl::StatusOr<absl::optional<StepPlan>> Next() ABSL_LOCKS_EXCLUDED(mu_);

  // For the runner: where results go; null before Attach().
  std::shared_ptr<StepSink> sink() const ABSL_LOCKS_EXCLUDED(mu_);

  // For the runner, at its end: the same, and lets go of it. The sink knows the
  // mailbox too, and neither would ever be freed.
  std::shared_ptr<StepSink> TakeSink() ABSL_LOCKS_EXCLUDED(mu_);

 private:
  bool SomethingForRunner() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return !plans_.empty() || ended_ || !aborted_.ok();
  }

  const size_t capacity_;
  const std::function<void(absl::Status)> interrupt_;

  mutable absl::Mutex mu_;
  std::deque<StepPlan> plans_ ABSL_GUARDED_BY(mu_);
  bool ended_ ABSL_GUARDED_BY(mu_) = false;
  bool attached_ ABSL_GUARDED_BY(mu_) = false;
  absl::Status aborted_ ABSL_GUARDED_BY(mu_);
  std::shared_ptr<StepSink> sink_ ABSL_GUARDED_BY(mu_);
};

}  // namespace tern

#endif  // WORKER_STEP_MAILBOX_H_
