#include "coordinator/token_stream.h"

#include <algorithm>
#include <iterator>

#include "util/logging.h"

namespace tern {

template <typename Change>
void TokenStream::Update(Change change) {
  {
    absl::MutexLock lock(&mu_);
    if (cut_) return;
    CHECK(!ended_) << "a token stream goes on after its end";
    change(&pending_);
    ended_ = pending_.end.has_value();
    if (woken_) return;
    woken_ = true;
  }
  wake_();
}

void TokenStream::Append(int32_t token, std::optional<TokenLogprobs> logprobs,
                         Taken* pending) {
  pending->tokens.push_back(token);
  if (!logprobs.has_value()) return;
  pending->logprobs.push_back(*std::move(logprobs));
  CHECK(pending->logprobs.size() == pending->tokens.size())
      << "tokens with and without log-probabilities in one stream";
}

void TokenStream::Admit(std::string numerics_id) {
  Update([&numerics_id](Taken* pending) {
    pending->admitted = true;
    pending->numerics_id = std::move(numerics_id);
  });
}

void TokenStream::PushPrompt(std::vector<TokenLogprobs> logprobs) {
  Update([&logprobs](Taken* pending) {
    std::move(logprobs.begin(), logprobs.end(),
              std::back_inserter(pending->prompt_logprobs));
  });
}

void TokenStream::Push(int32_t token, std::optional<TokenLogprobs> logprobs) {
  Update([&](Taken* pending) { Append(token, std::move(logprobs), pending); });
}

void TokenStream::ChangeNumerics(std::string numerics_id) {
  Update([&numerics_id](Taken* pending) {
    pending->numerics_changes.push_back(
        {static_cast<int>(pending->tokens.size()), std::move(numerics_id)});
  });
}

void TokenStream::End(SequenceEnd end) {
  Update([&end](Taken* pending) { pending->end = std::move(end); });
}

void TokenStream::PushAndEnd(int32_t token, SequenceEnd end,
                             std::optional<TokenLogprobs> logprobs) {
  Update([&](Taken* pending) {
    Append(token, std::move(logprobs), pending);
    pending->end = std::move(end);
  });
}

void TokenStream::PushAll(Taken taken) {
  Update([&taken](Taken* pending) {
    if (taken.admitted) {
      pending->admitted = true;
      pending->numerics_id = std::move(taken.numerics_id);
    }
    std::move(taken.prompt_logprobs.begin(), taken.prompt_logprobs.end(),
              std::back_inserter(pending->prompt_logprobs));
    for (NumericsChange& change : taken.numerics_changes) {
      change.n_tokens += static_cast<int>(pending->tokens.size());
      pending->numerics_changes.push_back(std::move(change));
    }
    pending->tokens.insert(pending->tokens.end(), taken.tokens.begin(),
                           taken.tokens.end());
    std::move(taken.logprobs.begin(), taken.logprobs.end(),
              std::back_inserter(pending->logprobs));
    if (taken.end.has_value()) pending->end = std::move(taken.end);
  });
}

void TokenStream::Cut(SequenceEnd end) {
  {
    absl::MutexLock lock(&mu_);
    if (cut_ || ended_) return;
    cut_ = true;
    pending_.end = std::move(end);
    if (woken_) return;
    woken_ = true;
  }
  wake_();
}

void TokenStream::Take(Taken* taken) {
  taken->prompt_logprobs.clear();
  taken->tokens.clear();
  taken->logprobs.clear();
  taken->numerics_changes.clear();
  taken->end.reset();
  absl::MutexLock lock(&mu_);
  woken_ = false;
  taken->admitted = pending_.admitted;
  taken->numerics_id = pending_.numerics_id;
  taken->prompt_logprobs.swap(pending_.prompt_logprobs);
  taken->tokens.swap(pending_.tokens);
  taken->logprobs.swap(pending_.logprobs);
  taken->numerics_changes.swap(pending_.numerics_changes);
  taken->end.swap(pending_.end);
}

}  // namespace tern
