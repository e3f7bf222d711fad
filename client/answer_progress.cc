#include "client/answer_progress.h"

#include <algorithm>

namespace tern {

bool AnswerProgress::Take(v1::StreamGenerateResponse* message) {
  if (message->has_prompt_info()) {
    if (has_info_) message->clear_prompt_info();
    has_info_ = true;
  }
  if (message->prompt_logprobs_size() > 0) {
    // They come again from the first one on, or not at all.
    const int n = message->prompt_logprobs_size();
    const int n_known =
        std::clamp(n_prompt_logprobs_ - n_prompt_logprobs_seen_, 0, n);
    n_prompt_logprobs_seen_ += n;
    n_prompt_logprobs_ = std::max(n_prompt_logprobs_, n_prompt_logprobs_seen_);
    message->mutable_prompt_logprobs()->DeleteSubrange(0, n_known);
  }
  if (message->has_delta()) {
    Answer& answer = answers_[message->delta().index()];
    // How it ended is told to everyone who comes.
    if (answer.has_ended) {
      message->clear_delta();
    } else {
      answer.n_tokens = message->delta().output_token_count();
      answer.has_ended =
          message->delta().finish_reason() != v1::FINISH_REASON_UNSPECIFIED;
    }
  }
  if (message->has_usage()) is_complete_ = true;
  return message->has_prompt_info() || message->has_delta() ||
         message->has_usage() || message->prompt_logprobs_size() > 0;
}

v1::ResumeGenerateRequest AnswerProgress::Rest(
    const std::string& request_id) const {
  v1::ResumeGenerateRequest request;
  request.set_request_id(request_id);
  const auto n_tokens_of = [this](int index) {
    const auto it = answers_.find(index);
    return it == answers_.end() ? 0 : it->second.n_tokens;
  };
  if (n_candidates_ == 1) {
    request.set_from_token(n_tokens_of(0));
    return request;
  }
  for (int i = 0; i < n_candidates_; ++i) {
    request.add_from_tokens(n_tokens_of(i));
  }
  return request;
}

}  // namespace tern
