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

}  // namespace tern

#endif  // COORDINATOR_DRAFT_CHOICE_H_
