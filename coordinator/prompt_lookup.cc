#include "coordinator/prompt_lookup.h"

#include <algorithm>

#include "util/logging.h"

namespace tern {

std::vector<int32_t> PromptLookup::Guess(absl::Span<const int32_t> text,
                                         int n_max) {
  CHECK(n_max >= 0);
  const int n = static_cast<int>(text.size());
  if (n < kMatch) return {};
  const auto key_before = [text](int place) {
    Key key;
    std::copy_n(text.begin() + place - kMatch, kMatch, key.begin());
    return key;
  };
  for (; n_indexed_ < n; ++n_indexed_) {
    places_[key_before(n_indexed_)] = n_indexed_;
  }
  const auto found = places_.find(key_before(n));
  if (found == places_.end()) return {};
  std::vector<int32_t> guess;
  guess.reserve(n_max);
  for (int i = 0; i < n_max; ++i) {
    const int place = found->second + i;
    guess.push_back(place < n ? text[place] : guess[place - n]);
  }
  return guess;
}

}  // namespace tern
