#ifndef COORDINATOR_DRAFT_CHOICE_H_
#define COORDINATOR_DRAFT_CHOICE_H_

#include <vector>

#include "absl/time/time.h"
#include "absl/types/span.h"
#include "coordinator/step_cost.h"

namespace tern {

// Guesses at the next tokens of one sequence.
struct DraftOffer {
  int n_guesses = 0;
  // That the first one comes true, and each other one if all before it did; in
  // [0, 1).
  double first_chance = 0;
  double chance = 0;
};

// How many of each offer's guesses a step should check, so that it yields most
// tokens for its time: a guess is worth its place when its chance, as a share
// of what the step yields, is more than what it adds to the step's time. While
// steps are bound by memory that is nearly nothing, and almost any guess goes;
// once they are bound by arithmetic hardly any does.
//
// n_tokens: of the step without guesses, which yields n_yield tokens; both at
//           least 1.
// n_max:    guesses that may go into the step.
// delay:    what it costs to check any at all.
//
// As many counts as offers; all 0 when no guesses are worth it. Pure.
std::vector<int> ChooseDrafts(absl::Span<const DraftOffer> offers, int n_tokens,
                              int n_yield, int n_max, const StepCost& cost,
                              absl::Duration delay);

// ChooseDrafts() for the steps of a pipeline, one after the other. Of kTryAfter
// decisions in a row against guesses the last is not followed: what is known of
// the cost of a larger step may be out of date. Pure; not thread-safe.
class DraftChooser {
 public:
  static constexpr int kTryAfter = 64;

  struct Options {
    // Most guesses of an offer; 0 for none at all.
    int max_draft_tokens = 0;
    // Whether guesses are checked even where they are not worth their time.
    bool always_drafts = false;
  };

  explicit DraftChooser(const Options& options) : options_(options) {}

  // Whether guesses for a step of so many tokens could be worth their time if
  // they came true, so that it is worth while to make some.
  bool MayPay(int n_tokens, const StepCost& cost);

  // As ChooseDrafts(), of a step that yields a token for each offer.
  std::vector<int> Choose(absl::Span<const DraftOffer> offers, int n_tokens,
                          int n_max, const StepCost& cost,
                          absl::Duration delay);

  // Guesses are checked.
  void OnTried() { n_declined_ = 0; }

 private:
  const Options options_;
  int n_declined_ = 0;  // decisions against guesses, in a row
};

}  // namespace tern

#endif  // COORDINATOR_DRAFT_CHOICE_H_
