#ifndef UTIL_FAKE_CLOCK_H_
#define UTIL_FAKE_CLOCK_H_

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "util/clock.h"
#include "util/logging.h"

namespace tern {

// A clock that moves only when a test says so. Thread-safe.
class FakeClock : public Clock {
 public:
  explicit FakeClock(absl::Time start = absl::FromUnixSeconds(1'000'000))
      : now_(start) {}

  absl::Time Now() override ABSL_LOCKS_EXCLUDED(mu_) {
    absl::MutexLock lock(&mu_);
    return now_;
  }

  // REQUIRES: duration >= 0.
  void Advance(absl::Duration duration) ABSL_LOCKS_EXCLUDED(mu_) {
    CHECK(duration >= absl::ZeroDuration());
    absl::MutexLock lock(&mu_);
    now_ += duration;
  }

 private:
  absl::Mutex mu_;
  absl::Time now_ ABSL_GUARDED_BY(mu_);
};

}  // namespace tern

#endif  // UTIL_FAKE_CLOCK_H_
