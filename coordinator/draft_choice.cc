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

bool DraftChooser::MayPay(int n_tokens, const StepCost& cost) {
  if (options_.max_draft_tokens == 0 || n_tokens == 0) return false;
  if (options_.always_drafts) return true;
  if (!cost.is_known()) return false;
  if (cost.Predict(2 * n_tokens) < 2 * cost.Predict(n_tokens)) return true;
  return ++n_declined_ > kTryAfter;
}

std::vector<int> DraftChooser::Choose(absl::Span<const DraftOffer> offers,
                                      int n_tokens, int n_max,
                                      const StepCost& cost,
                                      absl::Duration delay) {
  std::vector<int> counts(offers.size(), 0);
  if (options_.always_drafts) {
    int n_left = n_max;
    for (size_t i = 0; i < offers.size(); ++i) {
      counts[i] = std::min(offers[i].n_guesses, n_left);
      n_left -= counts[i];
    }
    return counts;
  }
  const auto chance_of = [](const DraftOffer& offer) {
    return offer.n_guesses > 0 ? offer.first_chance : 0;
  };
  const auto likeliest =
      std::max_element(offers.begin(), offers.end(),
                       [&](const DraftOffer& a, const DraftOffer& b) {
                         return chance_of(a) < chance_of(b);
                       });
  if (likeliest == offers.end() || likeliest->n_guesses == 0) return counts;
  counts = ChooseDrafts(offers, n_tokens, static_cast<int>(offers.size()),
                        n_max, cost, delay);
  const bool any =
      std::any_of(counts.begin(), counts.end(), [](int n) { return n > 0; });
  n_declined_ = any ? 0 : n_declined_ + 1;
  if (n_declined_ >= kTryAfter) {
    counts[likeliest - offers.begin()] = std::min(likeliest->n_guesses, n_max);
  }
  return counts;
}

}  // namespace tern
