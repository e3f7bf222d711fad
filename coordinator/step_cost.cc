#include "coordinator/step_cost.h"

#include <algorithm>
#include <cmath>

#include "util/logging.h"

namespace tern {
namespace {

// Weight of the newest step in its range's average. Much can hold a step up,
// the first of all most of all, and nothing makes it faster than it is.
constexpr double kNewest = 0.2;
constexpr double kNewestIfFaster = 0.8;

}  // namespace

int StepCost::RangeOf(int n_tokens) {
  CHECK(n_tokens > 0);
  return std::min(kRanges - 1,
                  static_cast<int>(std::floor(4 * std::log2(n_tokens))));
}

void StepCost::Observe(int n_tokens, absl::Duration busy) {
  Average& average = ranges_[RangeOf(n_tokens)];
  const double seconds = absl::ToDoubleSeconds(busy);
  if (!average.known) {
    average = {static_cast<double>(n_tokens), seconds, true};
    ++n_known_;
    return;
  }
  const double weight = seconds < average.seconds ? kNewestIfFaster : kNewest;
  average.n_tokens += weight * (n_tokens - average.n_tokens);
  average.seconds += weight * (seconds - average.seconds);
}

double StepCost::Seconds(double n_tokens) const {
  const Average* below = nullptr;  // the nearest two, in order
  const Average* before_below = nullptr;
  for (const Average& average : ranges_) {
    if (!average.known) continue;
    if (average.n_tokens >= n_tokens) {
      if (below == nullptr) return average.seconds;
      const double share =
          (n_tokens - below->n_tokens) / (average.n_tokens - below->n_tokens);
      return below->seconds + share * (average.seconds - below->seconds);
    }
    before_below = below;
    below = &average;
  }
  if (below == nullptr) return 0;
  if (before_below == nullptr) {
    return below->seconds * n_tokens / below->n_tokens;
  }
  // Larger steps never get cheaper, whatever noise says.
  const double slope =
      std::max(0.0, (below->seconds - before_below->seconds) /
                        (below->n_tokens - before_below->n_tokens));
  return below->seconds + slope * (n_tokens - below->n_tokens);
}

absl::Duration StepCost::Predict(int n_tokens) const {
  CHECK(n_tokens > 0);
  return absl::Seconds(Seconds(n_tokens));
}

int StepCost::TokensWithin(absl::Duration limit, int n_max) const {
  CHECK(n_max > 0 && is_known());
  const double seconds = absl::ToDoubleSeconds(limit);
  // The curve may dip where it is noisy: the answer is where a search that
  // takes it for rising ends up.
  int fits = 1, too_many = n_max + 1;
  while (fits + 1 < too_many) {
    const int middle = fits + (too_many - fits) / 2;
    (Seconds(middle) <= seconds ? fits : too_many) = middle;
  }
  return fits;
}

absl::Duration StepCost::LeastPerToken() const {
  double least = 0;
  for (const Average& average : ranges_) {
    if (!average.known) continue;
    const double per_token = average.seconds / average.n_tokens;
    if (least == 0 || per_token < least) least = per_token;
  }
  return absl::Seconds(least);
}

}  // namespace tern
