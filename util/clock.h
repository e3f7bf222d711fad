#ifndef UTIL_CLOCK_H_
#define UTIL_CLOCK_H_

#include "absl/time/time.h"

namespace tern {

// Where time comes from, so that tests can bring their own
// (tests/testing/fake_clock.h). Thread-safe.
class Clock {
 public:
  virtual ~Clock() = default;

  // A time that never goes back. Only differences mean anything.
  virtual absl::Time Now() = 0;

  // The machine's monotonic clock. Lives as long as the process.
  static Clock* System();
};

}  // namespace tern

#endif  // UTIL_CLOCK_H_
