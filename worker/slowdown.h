#ifndef WORKER_SLOWDOWN_H_
#define WORKER_SLOWDOWN_H_

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "model/step_times.h"

namespace tern {

// How many times as long as expected a worker's steps take, over the last five
// seconds of computing or so: the sum of what steps took over the sum of what
// was expected of them, both fading. Thread-safe.
class Slowdown {
 public:
  // expected: unknown times expect nothing, and the factor stays unknown.
  explicit Slowdown(const StepTimes& expected) : expected_(expected) {}

  // A step of a stage took `seconds`. One step counts no more than ten times as
  // long as expected: the system may have stopped the process.
  void Observe(int n_layers, bool has_head, const StepLoad& load,
               double seconds) ABSL_LOCKS_EXCLUDED(mu_);

  // 0 before steps of a fifth of a second have been seen.
  double factor() const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  const StepTimes expected_;
  mutable absl::Mutex mu_;
  double took_s_ ABSL_GUARDED_BY(mu_) = 0;
  double expected_s_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace tern

#endif  // WORKER_SLOWDOWN_H_
