#include "worker/token_ring.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "util/status_macros.h"

namespace tern {

absl::Status TokenRing::Resolve(StepPlan* plan, absl::Duration timeout) {
  for (const int64_t id : plan->released_sequence_ids) latest_.erase(id);
  int64_t awaited_step_id = 0;
  for (const StepRow& row : plan->rows) {
    if (row.sampled_in_step_id == 0) continue;
    RETURN_IF_ERROR(CheckIsLatest(plan->step_id, row));
    awaited_step_id = std::max(awaited_step_id, row.sampled_in_step_id);
  }
  // Also when nothing is awaited: so that tokens that no row names do not pile
  // up.
  if (inbox_ != nullptr) RETURN_IF_ERROR(Receive(awaited_step_id, timeout));
  for (StepRow& row : plan->rows) {
    if (row.sampled_in_step_id > 0) {
      const Latest& latest = latest_.at(row.sequence_id);
      if (latest.token.has_value()) {
        // After a row that failed the sequence is over, and nobody waits for
        // what comes of this one: any token will do.
        row.tokens[0] = std::max(0, *latest.token);
      } else if (inbox_ != nullptr) {
        return absl::DataLossError(
            absl::StrCat("the tokens sampled in step ", row.sampled_in_step_id,
                         " came from the last stage without that of sequence ",
                         row.sequence_id));
      }
    }
    if (row.samples) latest_[row.sequence_id] = {plan->step_id, {}};
  }
  return absl::OkStatus();
}

absl::Status TokenRing::CheckIsLatest(int64_t step_id,
                                      const StepRow& row) const {
  const auto latest = latest_.find(row.sequence_id);
  if (latest != latest_.end() &&
      latest->second.step_id == row.sampled_in_step_id) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("step ", step_id, ": the row of sequence ", row.sequence_id,
                   " takes the token that it sampled in step ",
                   row.sampled_in_step_id, ", which is not its latest"));
}

absl::Status TokenRing::Receive(int64_t step_id, absl::Duration timeout) {
  RETURN_IF_ERROR(inbox_->Take(step_id, timeout, &received_));
  for (const StepTokens& step : received_) {
    for (const SequenceToken& token : step.tokens) {
      Record(step.step_id, token.sequence_id, token.token_id);
    }
  }
  return absl::OkStatus();
}

absl::Status TokenRing::Send(int64_t step_id,
                             absl::Span<const SampledToken> sampled) {
  for (const SampledToken& token : sampled) {
    Record(step_id, token.sequence_id, token.token_id);
  }
  if (link_ == nullptr || sampled.empty()) return absl::OkStatus();
  return link_->Send(step_id, sampled);
}

// Unless nobody will ask for it: the sequence is gone, or has sampled since.
void TokenRing::Record(int64_t step_id, int64_t sequence_id, int32_t token_id) {
  const auto latest = latest_.find(sequence_id);
  if (latest == latest_.end() || latest->second.step_id != step_id) return;
  latest->second.token = token_id;
}

}  // namespace tern
