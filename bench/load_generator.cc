#include "bench/load_generator.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <deque>
#include <random>
#include <set>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/random/distributions.h"
#include "absl/status/status.h"
#include "absl/strings/str_format.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "grpcpp/client_context.h"
#include "grpcpp/support/client_callback.h"
#include "proto/tern/v1/inference.grpc.pb.h"
#include "proto/tern/v1/inference.pb.h"
#include "util/grpc_status.h"

namespace tern {
namespace {

// A closed loop does not hammer a server that refuses.
constexpr absl::Duration kPauseAfterError = absl::Milliseconds(100);

// Between looks at what is due.
constexpr absl::Duration kLongestWait = absl::Milliseconds(20);

// Buckets of the time line; what comes later is counted in the last one.
constexpr int kBuckets = 5 * 3600;

float Milliseconds(absl::Duration duration) {
  return static_cast<float>(absl::ToDoubleMilliseconds(duration));
}

class Generator {
 public:
  Generator(const LoadOptions& options, const Workload& workload,
            const std::shared_ptr<grpc::Channel>& channel,
            const Cancellation* cancellation)
      : options_(options),
        workload_(workload),
        stub_(v1::InferenceService::NewStub(channel)),
        cancellation_(cancellation),
        begin_(absl::Now()),
        count_from_(begin_ + options.warmup),
        count_to_(count_from_ + options.duration),
        arrivals_(workload.options().seed) {}

  LoadResult Run();

 private:
  class Call;

  // What the calls share and count without a lock.
  struct Counters {
    std::atomic<int64_t> n_tokens{0};  // since the beginning
    std::atomic<int> n_generating{0};
    std::atomic<int> peak_generating{0};
    std::array<std::atomic<int64_t>, kBuckets> tokens_by_time{};
    // While things count.
    std::atomic<bool> counting{false};
    std::atomic<int64_t> n_counted_tokens{0};
    std::atomic<int64_t> n_counted_prompt_tokens{0};
    std::atomic<int64_t> n_counted_messages{0};
  };

  static int BucketOf(absl::Duration since_begin) {
    return static_cast<int>(std::clamp<int64_t>(
        since_begin / LoadResult::kBucket, 0, kBuckets - 1));
  }

  bool MaySend() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return !stopping_ &&
           (options_.n_requests == 0 || n_sent_ < options_.n_requests);
  }
  // Begins a call; the caller starts it after letting go of the lock.
  Call* NextCall() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void SendDue(absl::Time now) ABSL_LOCKS_EXCLUDED(mu_);
  void OnCallDone(std::unique_ptr<Call> call, const grpc::Status& status)
      ABSL_LOCKS_EXCLUDED(mu_);
  void Count(const Call& call, const grpc::Status& status, absl::Time now)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void ShowProgress(absl::Time now) ABSL_LOCKS_EXCLUDED(mu_);
  void BeginCounting(absl::Time now);
  void EndCounting(absl::Time now);
  bool IsIdle() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return under_way_.empty() && n_ending_ == 0 && !MaySend();
  }

  const LoadOptions& options_;
  const Workload& workload_;
  const std::unique_ptr<v1::InferenceService::Stub> stub_;
  const Cancellation* const cancellation_;
  const absl::Time begin_;
  const absl::Time count_from_;
  const absl::Time count_to_;
  Counters counters_;

  // Of Run()'s thread.
  std::mt19937_64 arrivals_;
  absl::Time next_arrival_ = absl::InfiniteFuture();
  absl::Time next_progress_;
  absl::Time counting_since_;
  absl::Duration window_;
  int64_t tokens_shown_ = 0;

  absl::Mutex mu_;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;  // sends nothing more
  bool cutting_ ABSL_GUARDED_BY(mu_) = false;   // cancels what is under way
  int64_t n_sent_ ABSL_GUARDED_BY(mu_) = 0;
  int64_t n_ended_ ABSL_GUARDED_BY(mu_) = 0;
  int64_t n_failed_ ABSL_GUARDED_BY(mu_) = 0;
  std::set<Call*> under_way_ ABSL_GUARDED_BY(mu_);
  int n_ending_ ABSL_GUARDED_BY(mu_) = 0;  // no more under way, not freed yet
  std::deque<absl::Time> restarts_ ABSL_GUARDED_BY(mu_);  // after errors
  LoadResult result_ ABSL_GUARDED_BY(mu_);
};

// One request. Belongs to itself until it has ended. Its reactions come one at
// a time; nothing in it needs a lock.
class Generator::Call
    : public grpc::ClientReadReactor<v1::StreamGenerateResponse> {
 public:
  Call(Generator* generator, int64_t index)
      : generator_(generator), plan_(generator->workload_.Make(index)) {
    const WorkloadOptions& workload = generator->workload_.options();
    v1::GenerateRequest* const request = request_.mutable_request();
    request->set_model(workload.model);
    request->mutable_token_ids()->mutable_ids()->Add(plan_.prompt.begin(),
                                                     plan_.prompt.end());
    request->mutable_sampling()->set_seed(
        static_cast<int64_t>(plan_.sampling_seed));
    v1::StoppingParameters* const stopping = request->mutable_stopping();
    stopping->set_max_output_tokens(plan_.output_tokens);
    request->mutable_sampling()->set_temperature(workload.temperature);
    if (workload.resume_window > absl::ZeroDuration()) {
      request_.mutable_resume_window()->set_nanos(
          static_cast<int>(absl::ToInt64Nanoseconds(workload.resume_window)));
    }
    stopping->set_ignore_end_of_sequence(workload.ignore_eos);
    // To count the tokens of each message.
    request->mutable_response_options()->set_return_token_ids(true);
  }

  void Start() {
    started_ = absl::Now();
    if (generator_->options_.deadline != absl::InfiniteDuration()) {
      context_.set_deadline(
          absl::ToChronoTime(started_ + generator_->options_.deadline));
    }
    generator_->stub_->async()->StreamGenerate(&context_, &request_, this);
    StartRead(&response_);
    StartCall();
  }

  void Cancel() { context_.TryCancel(); }

  void OnReadDone(bool ok) override {
    if (!ok) return;
    const int n = response_.delta().token_ids_size();
    if (n > 0) OnTokens(n, absl::Now());
    if (response_.has_usage()) {
      n_cached_ = response_.usage().cached_prompt_token_count();
    }
    StartRead(&response_);
  }

  void OnDone(const grpc::Status& status) override {
    if (n_tokens_ > 0) --generator_->counters_.n_generating;
    generator_->OnCallDone(std::unique_ptr<Call>(this), status);
  }

  absl::Time started() const { return started_; }
  absl::Time first_token() const { return first_token_; }
  bool cancelled_as_planned() const { return cancelled_as_planned_; }
  int n_tokens() const { return n_tokens_; }
  int n_cached() const { return n_cached_; }
  absl::Duration MeanGap() const {
    return n_tokens_ < 2 ? absl::ZeroDuration()
                         : (last_token_ - first_token_) / (n_tokens_ - 1);
  }
  const std::vector<float>& gap_ms() const { return gap_ms_; }

 private:
  void OnTokens(int n, absl::Time now) {
    Counters& counters = generator_->counters_;
    const bool counting = counters.counting;
    if (n_tokens_ == 0) {
      first_token_ = now;
      if (counting) {
        counters.n_counted_prompt_tokens +=
            static_cast<int64_t>(plan_.prompt.size());
      }
      const int n_generating = ++counters.n_generating;
      int peak = counters.peak_generating;
      while (
          n_generating > peak &&
          !counters.peak_generating.compare_exchange_weak(peak, n_generating)) {
      }
    } else {
      gap_ms_.push_back(Milliseconds(now - last_token_));
    }
    gap_ms_.insert(gap_ms_.end(), n - 1, 0);
    last_token_ = now;
    n_tokens_ += n;
    counters.n_tokens += n;
    counters.tokens_by_time[BucketOf(now - generator_->begin_)] += n;
    if (counting) {
      counters.n_counted_tokens += n;
      ++counters.n_counted_messages;
    }
    if (plan_.cancel_at_tokens > 0 && n_tokens_ >= plan_.cancel_at_tokens &&
        !cancelled_as_planned_) {
      cancelled_as_planned_ = true;
      context_.TryCancel();
    }
  }

  Generator* const generator_;
  const PlannedRequest plan_;
  grpc::ClientContext context_;
  v1::StreamGenerateRequest request_;
  v1::StreamGenerateResponse response_;
  absl::Time started_;
  absl::Time first_token_;
  absl::Time last_token_;
  int n_tokens_ = 0;
  int n_cached_ = 0;
  bool cancelled_as_planned_ = false;
  std::vector<float> gap_ms_;
};

Generator::Call* Generator::NextCall() {
  Call* const call = new Call(this, n_sent_++);
  under_way_.insert(call);
  result_.peak_under_way =
      std::max(result_.peak_under_way, static_cast<int>(under_way_.size()));
  return call;
}

void Generator::OnCallDone(std::unique_ptr<Call> call,
                           const grpc::Status& status) {
  const absl::Time now = absl::Now();
  Call* next = nullptr;
  {
    absl::MutexLock lock(&mu_);
    Count(*call, status, now);
    under_way_.erase(call.get());
    ++n_ending_;
    ++n_ended_;
    const bool failed = !status.ok() && !call->cancelled_as_planned();
    n_failed_ += failed;
    if (options_.rate == 0 && now < count_to_ && MaySend()) {
      if (failed) {
        restarts_.push_back(now + kPauseAfterError);
      } else {
        next = NextCall();
      }
    }
  }
  // Before Run() can return: the call's context holds the channel, and gRPC
  // must not see the last of its channels go in a thread of its own.
  call.reset();
  if (next != nullptr) next->Start();
  absl::MutexLock lock(&mu_);
  --n_ending_;
}

void Generator::Count(const Call& call, const grpc::Status& status,
                      absl::Time now) {
  if (call.started() < count_from_ || call.started() >= count_to_) return;
  if (call.cancelled_as_planned()) {
    ++result_.n_cancelled;
    return;
  }
  if (cutting_ && status.error_code() == grpc::StatusCode::CANCELLED) {
    ++result_.n_unfinished;
    return;
  }
  if (!status.ok()) {
    ++result_.errors[absl::StatusCodeToString(FromGrpcStatus(status).code())];
    if (result_.first_error.empty()) {
      result_.first_error = status.error_message();
    }
    return;
  }
  ++result_.n_ok;
  result_.n_cached_prompt_tokens += call.n_cached();
  result_.e2e_ms.push_back(Milliseconds(now - call.started()));
  // An answer may be a stop token alone.
  if (call.n_tokens() == 0) return;
  const absl::Duration ttft = call.first_token() - call.started();
  result_.ttft_ms.push_back(Milliseconds(ttft));
  result_.gap_ms.insert(result_.gap_ms.end(), call.gap_ms().begin(),
                        call.gap_ms().end());
  if (call.n_tokens() > 1) {
    result_.mean_gap_ms.push_back(Milliseconds(call.MeanGap()));
  }
  if (ttft <= options_.good_ttft && call.MeanGap() <= options_.good_itl) {
    ++result_.n_good;
  }
}

void Generator::SendDue(absl::Time now) {
  std::vector<Call*> calls;
  {
    absl::MutexLock lock(&mu_);
    while (!restarts_.empty() && restarts_.front() <= now) {
      restarts_.pop_front();
      if (MaySend()) calls.push_back(NextCall());
    }
    while (next_arrival_ <= now && MaySend()) {
      next_arrival_ +=
          absl::Seconds(absl::Exponential<double>(arrivals_, options_.rate));
      if (static_cast<int>(under_way_.size()) < options_.concurrency) {
        calls.push_back(NextCall());
      } else {
        ++n_sent_;
        if (now >= count_from_) ++result_.n_dropped;
      }
    }
    if (!MaySend()) next_arrival_ = absl::InfiniteFuture();
  }
  for (Call* const call : calls) call->Start();
}

void Generator::ShowProgress(absl::Time now) {
  const int64_t n_tokens = counters_.n_tokens;
  std::string line;
  {
    absl::MutexLock lock(&mu_);
    line = absl::StrFormat(
        "%3.0f s%s: %d under way, %d ended, %d failed, %.0f tokens/s",
        absl::ToDoubleSeconds(now - begin_),
        now < count_from_ ? " (warm-up)" : "", under_way_.size(), n_ended_,
        n_failed_, static_cast<double>(n_tokens - tokens_shown_));
  }
  tokens_shown_ = n_tokens;
  options_.on_progress(line);
}

void Generator::BeginCounting(absl::Time now) {
  counting_since_ = now;
  counters_.counting = true;
  if (options_.on_begin) options_.on_begin();
}

void Generator::EndCounting(absl::Time now) {
  counters_.counting = false;
  window_ = now - counting_since_;
  if (options_.on_end) options_.on_end();
}

LoadResult Generator::Run() {
  std::vector<Call*> calls;
  {
    absl::MutexLock lock(&mu_);
    while (options_.rate == 0 && MaySend() &&
           static_cast<int>(calls.size()) < options_.concurrency) {
      calls.push_back(NextCall());
    }
  }
  enum class Phase { kWarmup, kCounting, kDraining } phase = Phase::kWarmup;
  // Without a warm-up the first token counts, however soon it comes.
  if (options_.warmup <= absl::ZeroDuration()) {
    phase = Phase::kCounting;
    BeginCounting(begin_);
  }
  for (Call* const call : calls) call->Start();
  if (options_.rate > 0) next_arrival_ = begin_;
  next_progress_ = begin_ + absl::Seconds(1);

  absl::Time cut_at = absl::InfiniteFuture();
  while (true) {
    const absl::Time now = absl::Now();
    const bool cancelled =
        cancellation_ != nullptr && cancellation_->cancelled();
    if (phase == Phase::kWarmup && now >= count_from_) {
      phase = Phase::kCounting;
      BeginCounting(now);
    }
    if (phase != Phase::kDraining && (now >= count_to_ || cancelled)) {
      if (phase == Phase::kCounting) EndCounting(now);
      phase = Phase::kDraining;
      cut_at = now + options_.drain;
      absl::MutexLock lock(&mu_);
      stopping_ = true;
    }
    if (cancelled || now >= cut_at) {
      absl::MutexLock lock(&mu_);
      cutting_ = true;
      for (Call* const call : under_way_) call->Cancel();
    }
    SendDue(now);
    if (options_.on_progress && now >= next_progress_) {
      ShowProgress(now);
      next_progress_ += absl::Seconds(1);
    }
    const absl::Time wake = std::min(now + kLongestWait, next_arrival_);
    absl::MutexLock lock(&mu_);
    const auto idle = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
      return IsIdle();
    };
    if (mu_.AwaitWithDeadline(absl::Condition(&idle), wake)) break;
  }

  const absl::Time end = absl::Now();
  if (phase == Phase::kCounting) EndCounting(end);
  absl::MutexLock lock(&mu_);
  result_.window = window_;
  result_.peak_generating = counters_.peak_generating;
  result_.n_output_tokens = counters_.n_counted_tokens;
  result_.n_prompt_tokens = counters_.n_counted_prompt_tokens;
  result_.n_messages = counters_.n_counted_messages;
  for (int i = 0; i <= BucketOf(end - begin_); ++i) {
    result_.tokens_by_time.push_back(counters_.tokens_by_time[i]);
  }
  return std::move(result_);
}

}  // namespace

LoadResult RunLoad(const LoadOptions& options, const Workload& workload,
                   const std::shared_ptr<grpc::Channel>& channel,
                   const Cancellation* cancellation) {
  // Large, for the time line.
  return std::make_unique<Generator>(options, workload, channel, cancellation)
      ->Run();
}

}  // namespace tern
