#include "bench/timed_stream.h"

#include <random>

#include "absl/time/clock.h"
#include "proto/tern/v1/inference.pb.h"

namespace tern {

TimedStream::TimedStream(Client* client, int n_prompt, int n_output,
                         int vocab_size, uint64_t seed, const CallOptions& call)
    : begin_(absl::Now()) {
  v1::GenerateRequest request;
  std::mt19937_64 random(seed);
  for (int i = 0; i < n_prompt; ++i) {
    request.mutable_token_ids()->add_ids(
        static_cast<int32_t>(random() % static_cast<uint64_t>(vocab_size)));
  }
  request.mutable_sampling()->set_temperature(0.8f);
  request.mutable_sampling()->set_seed(seed);
  request.mutable_stopping()->set_max_output_tokens(n_output);
  request.mutable_stopping()->set_ignore_end_of_sequence(true);
  request.mutable_response_options()->set_return_token_ids(true);
  reader_ = std::thread([this, client, request, call] {
    const absl::Status status = client->StreamGenerate(
        request,
        [this](const v1::StreamGenerateResponse& response) {
          const absl::Time now = absl::Now();
          absl::MutexLock lock(&mu_);
          for (const int32_t id : response.delta().token_ids()) {
            tokens_.push_back(id);
            times_.push_back(now);
          }
          return true;
        },
        call);
    absl::MutexLock lock(&mu_);
    status_ = status;
    ended_ = true;
  });
}

TimedStream::~TimedStream() { reader_.join(); }

void TimedStream::AwaitTokens(size_t n) {
  absl::MutexLock lock(&mu_);
  const auto have = [this, n]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return ended_ || tokens_.size() >= n;
  };
  mu_.Await(absl::Condition(&have));
}

absl::Status TimedStream::AwaitEnd() {
  absl::MutexLock lock(&mu_);
  mu_.Await(absl::Condition(&ended_));
  return status_;
}

std::vector<int32_t> TimedStream::tokens() const {
  absl::MutexLock lock(&mu_);
  return tokens_;
}

absl::Duration TimedStream::first_token() const {
  absl::MutexLock lock(&mu_);
  return times_.front() - begin_;
}

absl::Time TimedStream::GoesOnAfter(absl::Time time) const {
  absl::MutexLock lock(&mu_);
  absl::Duration longest;
  absl::Time on = time;
  for (size_t i = 1; i < times_.size(); ++i) {
    if (times_[i] <= time || times_[i] - times_[i - 1] <= longest) continue;
    longest = times_[i] - times_[i - 1];
    on = times_[i];
  }
  return on;
}

}  // namespace tern
