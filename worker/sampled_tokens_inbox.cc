#include "worker/sampled_tokens_inbox.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "util/logging.h"
#include "util/status_macros.h"

namespace tern {

SampledTokensInbox::SampledTokensInbox(const Options& options)
    : TransferInbox("sampled tokens"), options_(options) {
  CHECK(options.vocab_size > 0 && options.max_step_tokens > 0 &&
        options.waiting_steps_max > 0);
}

absl::StatusOr<bool> SampledTokensInbox::Offer(const StepTokens& step,
                                               std::function<void()> on_room) {
  absl::MutexLock lock(&mu_);
  RETURN_IF_ERROR(closed_);
  RETURN_IF_ERROR(Check(step));
  if (waiting_.size() >= static_cast<size_t>(options_.waiting_steps_max)) {
    on_room_ = std::move(on_room);
    return false;
  }
  waiting_.push_back(step);
  last_step_id_ = step.step_id;
  ++step_count_;
  return true;
}

absl::Status SampledTokensInbox::Check(const StepTokens& step) const {
  const auto wrong = [&step](const auto&... what) {
    return absl::DataLossError(absl::StrCat("the tokens sampled in step ",
                                            step.step_id, " ", what...));
  };
  if (step.step_id <= last_step_id_) {
    return wrong("come after those of step ", last_step_id_);
  }
  if (step.tokens.size() > static_cast<size_t>(options_.max_step_tokens)) {
    return wrong("are ", step.tokens.size(), "; a step has at most ",
                 options_.max_step_tokens, " rows");
  }
  for (const SequenceToken& token : step.tokens) {
    if (token.token_id < -1 || token.token_id >= options_.vocab_size) {
      return wrong("have token ", token.token_id, " of sequence ",
                   token.sequence_id, "; the vocabulary has ",
                   options_.vocab_size);
    }
  }
  return absl::OkStatus();
}

absl::Status SampledTokensInbox::Take(int64_t step_id, absl::Duration timeout,
                                      std::vector<StepTokens>* steps) {
  const absl::Time deadline = absl::Now() + timeout;
  steps->clear();
  while (true) {
    std::function<void()> on_room;
    {
      absl::MutexLock lock(&mu_);
      // What is waited for may be behind what a full inbox holds back.
      const auto something_came = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
        return last_step_id_ >= step_id || on_room_ != nullptr || ended_ ||
               !closed_.ok();
      };
      const bool in_time =
          mu_.AwaitWithDeadline(absl::Condition(&something_came), deadline);
      RETURN_IF_ERROR(closed_);
      std::move(waiting_.begin(), waiting_.end(), std::back_inserter(*steps));
      waiting_.clear();
      if (last_step_id_ >= step_id && on_room_ == nullptr) {
        return absl::OkStatus();
      }
      if (!in_time) {
        return absl::UnavailableError(absl::StrCat(
            "the tokens sampled in step ", step_id, " did not come within ",
            absl::FormatDuration(timeout), " from the last stage"));
      }
      if (ended_) {
        return absl::UnavailableError(absl::StrCat(
            "the last stage ended its stream; the tokens sampled in step ",
            step_id, " will not come"));
      }
      on_room = std::exchange(on_room_, nullptr);
    }
    on_room();
  }
}

}  // namespace tern
