#include "util/clock.h"

#include <ctime>

namespace tern {
namespace {

class MonotonicClock : public Clock {
 public:
  absl::Time Now() override {
    timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return absl::TimeFromTimespec(t);
  }
};

}  // namespace

Clock* Clock::System() {
  static Clock* const clock = new MonotonicClock;
  return clock;
}

}  // namespace tern
