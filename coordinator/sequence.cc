#include "coordinator/sequence.h"

#include <algorithm>
#include <utility>

#include "util/logging.h"

namespace tern {

Sequence::Sequence(int64_t id, SequenceParameters parameters)
    : id(id),
      parameters(std::move(parameters)),
      n_prompt(static_cast<int>(this->parameters.prompt.size())),
      tokens(this->parameters.prompt),
      n_scored(this->parameters.sampler.prompt_logprobs >= 0 ? 1 : n_prompt) {
  CHECK(n_prompt > 0);
  CHECK(this->parameters.max_output_tokens > 0);
}

void Sequence::ObserveDrafts(int n_drafts, int n_true) {
  CHECK(n_true >= 0 && n_true <= n_drafts);
  // The first wrong one tells as much as a right one, what is behind it
  // nothing.
  constexpr double kNewest = 0.1;
  constexpr double kForgotten = 0.01;
  if (n_drafts == 0) {
    draft_chance += kForgotten * (kFirstDraftChance - draft_chance);
  }
  for (int i = 0; i < std::min(n_true + 1, n_drafts); ++i) {
    draft_chance += kNewest * ((i < n_true ? 1 : 0) - draft_chance);
  }
}

Sequence::Ending Sequence::Append(int32_t token) {
  tokens.push_back(token);
  const std::vector<int32_t>& stops = parameters.stop_token_ids;
  // Workers draw no stop token below the minimum; one that does not know of it
  // must not end the answer either.
  if (n_output() > parameters.min_output_tokens &&
      std::find(stops.begin(), stops.end(), token) != stops.end()) {
    return {true, FinishReason::kStop, token};
  }
  if (n_output() >= parameters.max_output_tokens) {
    return {true, FinishReason::kLength, -1};
  }
  return {};
}

}  // namespace tern
