#include "worker/slowdown.h"

#include <algorithm>
#include <cmath>

namespace tern {
namespace {

// Of computing, after which a step counts for 1/e.
constexpr double kMemorySeconds = 5;
// Of computing, before which nothing is said.
constexpr double kLeastSeconds = 0.2;
// One step counts no more than so many times as long as expected.
constexpr double kMostOfOneStep = 10;

}  // namespace

void Slowdown::Observe(int n_layers, bool has_head, const StepLoad& load,
                       double seconds) {
  const double expected = StageSeconds(expected_, n_layers, has_head, load);
  if (expected <= 0) return;
  const double took = std::min(seconds, kMostOfOneStep * expected);
  const double kept = std::exp(-took / kMemorySeconds);
  absl::MutexLock lock(&mu_);
  took_s_ = took_s_ * kept + took;
  expected_s_ = expected_s_ * kept + expected;
}

double Slowdown::factor() const {
  absl::MutexLock lock(&mu_);
  return took_s_ < kLeastSeconds ? 0 : took_s_ / expected_s_;
}

}  // namespace tern
