#include "coordinator/draft_choice.h"

#include <algorithm>

#include "util/logging.h"

namespace tern {

std::vector<int> ChooseDrafts(absl::Span<const DraftOffer> offers, int n_tokens,
                              int n_yield, int n_max, const StepCost& cost,
                              absl::Duration delay) {
  CHECK(n_tokens > 0 && n_yield > 0);
  std::vector<int> counts(offers.size(), 0);
  if (!cost.is_known()) return counts;
  struct Guess {
    double chance;
    int offer;
  };
  std::vector<Guess> guesses;
  for (size_t i = 0; i < offers.size(); ++i) {
    double chance = offers[i].first_chance;
    for (int k = 0; k < offers[i].n_guesses; ++k) {
      guesses.push_back({chance, static_cast<int>(i)});
      chance *= offers[i].chance;
    }
  }
  // The likeliest first; those of one offer stay in their order, since none is
  // likelier than the one before it.
  std::stable_sort(
      guesses.begin(), guesses.end(),
      [](const Guess& a, const Guess& b) { return a.chance > b.chance; });
  const int n_guesses =
      std::min(static_cast<int>(guesses.size()), std::max(0, n_max));
  double best = n_yield / absl::ToDoubleSeconds(cost.Predict(n_tokens));
  double yield = n_yield;
  int n_best = 0;
  for (int n = 1; n <= n_guesses; ++n) {
    yield += guesses[n - 1].chance;
    const double rate =
        yield / absl::ToDoubleSeconds(cost.Predict(n_tokens + n) + delay);
    if (rate > best) {
      best = rate;
      n_best = n;
    }
  }
  for (int n = 0; n < n_best; ++n) ++counts[guesses[n].offer];
  return counts;
}

}  // namespace tern
