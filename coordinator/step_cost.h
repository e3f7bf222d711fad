#ifndef COORDINATOR_STEP_COST_H_
#define COORDINATOR_STEP_COST_H_

#include <array>
#include <cstdint>

#include "absl/time/time.h"

namespace tern {

// How long a pipeline's slowest stage computes at a step of so many tokens,
// learned from the steps it has run.
//
// A curve of moving averages, one for each range of token counts, and straight
// lines between them: steps are bound by memory while they are small and by
// arithmetic when they are large, which no single line fits. Beyond the largest
// step seen the last line goes on. Adapts to whatever else makes steps longer,
// such as growing contexts, in some ten steps.
//
// Pure; not thread-safe.
class StepCost {
 public:
  // A step of n_tokens took `busy`. REQUIRES: n_tokens > 0.
  void Observe(int n_tokens, absl::Duration busy);

  bool is_known() const { return n_known_ > 0; }

  // Zero while nothing is known. REQUIRES: n_tokens > 0.
  absl::Duration Predict(int n_tokens) const;

  // The most tokens, up to `n_max`, of a step that is predicted to take no
  // longer than `limit`; at least 1. REQUIRES: n_max > 0; is_known().
  int TokensWithin(absl::Duration limit, int n_max) const;

  // Of a step of the size at which it is lowest. Zero while nothing is known.
  absl::Duration LeastPerToken() const;

 private:
  // Four ranges for each doubling.
  static constexpr int kRanges = 96;
  struct Average {
    double n_tokens = 0;
    double seconds = 0;
    bool known = false;
  };

  static int RangeOf(int n_tokens);
  double Seconds(double n_tokens) const;

  std::array<Average, kRanges> ranges_;
  int n_known_ = 0;
};

}  // namespace tern

#endif  // COORDINATOR_STEP_COST_H_
