#ifndef COORDINATOR_PROMPT_LOOKUP_H_
#define COORDINATOR_PROMPT_LOOKUP_H_

#include <array>
#include <cstdint>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/types/span.h"

namespace tern {

// Guesses how a text goes on from where it stood like this before: what
// followed the latest earlier place of its last kMatch tokens. Answers that
// quote, correct or continue their prompt repeat much of it (prompt lookup
// decoding, Saxena 2023).
//
// Keeps an index of the text, some 30 bytes a token, made as far as needed when
// a guess is asked for. Pure; not thread-safe.
class PromptLookup {
 public:
  static constexpr int kMatch = 3;

  // Up to n_max tokens that may come next; none when the end of the text is new
  // to it. What would follow the end of the text follows itself: a text that
  // goes round in circles is guessed to go on doing so.
  // REQUIRES: `text` begins with the text of the call before; n_max >= 0.
  std::vector<int32_t> Guess(absl::Span<const int32_t> text, int n_max);

 private:
  using Key = std::array<int32_t, kMatch>;

  // By the tokens before it, the latest place but the end of the text.
  absl::flat_hash_map<Key, int32_t> places_;
  int n_indexed_ = kMatch;  // places before it are known
};

}  // namespace tern

#endif  // COORDINATOR_PROMPT_LOOKUP_H_
