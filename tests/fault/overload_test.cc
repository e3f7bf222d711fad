// Ten times what a cluster can do is asked of it, over real gRPC: what it takes
// in it answers as if it were alone, the rest is told so at once, and nothing
// of it stays behind.
//
// TERN_OVERLOAD_SECONDS says for how long; docs/benchmarks.md has the command
// for a minute.

#include <sys/types.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "grpcpp/client_context.h"
#include "grpcpp/support/client_callback.h"
#include "gtest/gtest.h"
#include "proto/tern/v1/error.pb.h"
#include "proto/tern/v1/inference.pb.h"
#include "tests/integration/local_cluster.h"

namespace tern {
namespace {

// What the coordinator may grow by: the requests it may hold, their calls and
// what gRPC and malloc keep for the next ones.
constexpr int64_t kGrowthMaxKb = 48 * 1024;

constexpr int kKinds = 12;         // of requests
constexpr int kUnderWayMax = 512;  // more would only wait in this process

// A short deadline; some make it and some do not.
constexpr absl::Duration kShort = absl::Milliseconds(60);

v1::GenerateRequest RequestOf(int kind) {
  v1::GenerateRequest request;
  request.set_text(absl::StrCat("Citizen ", kind, ":\nBefore we proceed"));
  request.mutable_sampling()->set_temperature(kind % 2 == 0 ? 0 : 0.9f);
  request.mutable_sampling()->set_seed(100 + kind);
  request.mutable_stopping()->set_max_output_tokens(16 + kind);
  request.mutable_stopping()->set_ignore_end_of_sequence(true);
  request.mutable_response_options()->set_return_token_ids(true);
  return request;
}

int64_t ResidentKb(pid_t pid) {
  std::ifstream status(absl::StrCat("/proc/", pid, "/status"));
  std::string word;
  int64_t kb = 0;
  while (status >> word) {
    if (word == "VmRSS:") status >> kb;
  }
  return kb;
}

// Sends streams and judges their ends. Thread-safe.
class Load {
 public:
  struct Counts {
    int n_sent = 0;
    int n_answered = 0;
    int n_refused = 0;   // RESOURCE_EXHAUSTED with RetryInfo
    int n_too_late = 0;  // DEADLINE_EXCEEDED, of those with a deadline
    std::string first_wrong;
  };

  explicit Load(v1::InferenceService::Stub* stub) : stub_(stub) {}

  // Starts a stream, if fewer than `n_max` are under way.
  void Send(int kind, absl::Duration timeout, int n_max)
      ABSL_LOCKS_EXCLUDED(mu_) {
    {
      absl::MutexLock lock(&mu_);
      if (n_under_way_ >= n_max) return;
      ++n_under_way_;
      ++counts_.n_sent;
    }
    (new Call(this, kind, timeout))->Start();
  }

  // Waits at most `timeout` until at most `n` are under way.
  bool Await(int n, absl::Duration timeout) ABSL_LOCKS_EXCLUDED(mu_) {
    absl::MutexLock lock(&mu_);
    const auto few = [this, n]() ABSL_SHARED_LOCKS_REQUIRED(mu_) {
      return n_under_way_ <= n;
    };
    return mu_.AwaitWithTimeout(absl::Condition(&few), timeout);
  }

  Counts counts() ABSL_LOCKS_EXCLUDED(mu_) {
    absl::MutexLock lock(&mu_);
    return counts_;
  }

  // What each kind is answered when it is asked alone. Set before Send().
  std::vector<std::vector<int>> expected;

 private:
  // Keeps itself until it has ended.
  class Call : public grpc::ClientReadReactor<v1::StreamGenerateResponse> {
   public:
    Call(Load* load, int kind, absl::Duration timeout)
        : load_(load), kind_(kind), timeout_(timeout) {
      *request_.mutable_request() = RequestOf(kind);
    }

    void Start() {
      context_.set_deadline(absl::ToChronoTime(absl::Now() + timeout_));
      load_->stub_->async()->StreamGenerate(&context_, &request_, this);
      StartRead(&response_);
      StartCall();
    }

    void OnReadDone(bool ok) override {
      if (!ok) return;
      admitted_ = admitted_ || response_.has_prompt_info();
      for (const int id : response_.delta().token_ids()) tokens_.push_back(id);
      StartRead(&response_);
    }

    void OnDone(const grpc::Status& status) override {
      const std::unique_ptr<Call> self(this);
      Load* const load = load_;
      const std::string wrong = Judge(status);
      absl::MutexLock lock(&load->mu_);
      if (!wrong.empty() && load->counts_.first_wrong.empty()) {
        load->counts_.first_wrong = wrong;
      }
      switch (status.error_code()) {
        case grpc::StatusCode::OK:
          ++load->counts_.n_answered;
          break;
        case grpc::StatusCode::RESOURCE_EXHAUSTED:
          ++load->counts_.n_refused;
          break;
        default:
          ++load->counts_.n_too_late;
      }
      --load->n_under_way_;
    }

   private:
    // What is wrong with the end; empty when nothing is.
    std::string Judge(const grpc::Status& status) const {
      const std::vector<int>& expected = load_->expected[kind_];
      const std::string what = absl::StrCat(
          "kind ", kind_, ", ", admitted_ ? "" : "not ", "admitted, ",
          tokens_.size(), " tokens: ", status.error_code(), " ",
          status.error_message());
      // Whatever came is the beginning of the answer.
      if (tokens_.size() > expected.size() ||
          !std::equal(tokens_.begin(), tokens_.end(), expected.begin())) {
        return absl::StrCat("other tokens; ", what);
      }
      switch (status.error_code()) {
        case grpc::StatusCode::OK:
          return tokens_ == expected ? "" : absl::StrCat("cut short; ", what);
        case grpc::StatusCode::DEADLINE_EXCEEDED:
          return timeout_ == kShort ? "" : absl::StrCat("no deadline; ", what);
        case grpc::StatusCode::RESOURCE_EXHAUSTED: {
          if (admitted_) return absl::StrCat("refused after all; ", what);
          v1::StatusDetails details;
          v1::RetryInfo info;
          const bool told = details.ParseFromString(status.error_details()) &&
                            details.details_size() == 1 &&
                            info.ParseFromString(details.details(0).value()) &&
                            info.retry_delay().seconds() >= 1;
          return told ? "" : absl::StrCat("not told when to retry; ", what);
        }
        default:
          return absl::StrCat("a wrong status; ", what);
      }
    }

    Load* const load_;
    const int kind_;
    const absl::Duration timeout_;
    grpc::ClientContext context_;
    v1::StreamGenerateRequest request_;
    v1::StreamGenerateResponse response_;
    bool admitted_ = false;
    std::vector<int> tokens_;
  };

  v1::InferenceService::Stub* const stub_;
  absl::Mutex mu_;
  int n_under_way_ ABSL_GUARDED_BY(mu_) = 0;
  Counts counts_ ABSL_GUARDED_BY(mu_);
};

int BlocksInUse(LocalCluster& cluster) {
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(absl::Now() + absl::Seconds(60)));
  v1::GetModelResponse response;
  EXPECT_TRUE(cluster.inference().GetModel(&context, {}, &response).ok());
  EXPECT_EQ(response.model().pipelines_size(), 1);
  return response.model().pipelines(0).kv_block_in_use_count();
}

absl::Duration HowLong() {
  const char* const text = std::getenv("TERN_OVERLOAD_SECONDS");
  int seconds = 10;
  EXPECT_TRUE(text == nullptr || absl::SimpleAtoi(text, &seconds)) << text;
  return absl::Seconds(seconds);
}

TEST(Overload, TheAdmittedAreAnsweredAndTheRestToldSo) {
  LocalCluster::Options options;
  options.coordinator_flags = {"--max_sequences=4", "--max_queued_requests=4"};
  options.worker_flags = {"--threads=1"};
  auto started = LocalCluster::Start(options);
  ASSERT_TRUE(started.ok()) << started.status();
  LocalCluster& cluster = **started;
  const absl::Duration long_time = absl::Minutes(5);

  Load load(&cluster.inference());
  for (int kind = 0; kind < kKinds; ++kind) {
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(absl::Now() + long_time));
    v1::GenerateResponse response;
    const grpc::Status status =
        cluster.inference().Generate(&context, RequestOf(kind), &response);
    ASSERT_TRUE(status.ok()) << status.error_message() << cluster.Logs();
    const auto& ids = response.candidates(0).token_ids();
    load.expected.emplace_back(ids.begin(), ids.end());
    ASSERT_EQ(ids.size(), 16 + kind);
  }

  // What it can do: as many under way as run at a time.
  const absl::Time begin = absl::Now();
  int next = 0;
  while (absl::Now() - begin < absl::Seconds(2)) {
    load.Send(next++ % kKinds, long_time, /*n_max=*/4);
    load.Await(3, long_time);
  }
  ASSERT_TRUE(load.Await(0, long_time));
  const double capacity =
      load.counts().n_answered / absl::ToDoubleSeconds(absl::Now() - begin);
  ASSERT_EQ(load.counts().first_wrong, "");
  ASSERT_EQ(load.counts().n_refused, 0);

  const pid_t pid = cluster.coordinator().pid();
  const int64_t before_kb = ResidentKb(pid);
  int64_t most_kb = before_kb;
  ASSERT_GT(before_kb, 0);
  const int n_answered_before = load.counts().n_answered;
  const absl::Duration pause = absl::Seconds(1) / (10 * capacity);
  const absl::Time load_begin = absl::Now();
  const absl::Time load_end = load_begin + HowLong();
  absl::Time look_at = load_begin;
  for (absl::Time due = load_begin; due < load_end; due += pause) {
    // An open loop: what is late is sent at once.
    if (due > absl::Now()) load.Await(-1, due - absl::Now());
    const bool hurried = next % 5 == 0;
    load.Send(next++ % kKinds, hurried ? kShort : long_time, kUnderWayMax);
    if (absl::Now() < look_at) continue;
    look_at = absl::Now() + absl::Milliseconds(200);
    most_kb = std::max(most_kb, ResidentKb(pid));
  }
  const absl::Duration load_time = absl::Now() - load_begin;
  ASSERT_TRUE(load.Await(0, long_time)) << cluster.Logs();
  most_kb = std::max(most_kb, ResidentKb(pid));

  const Load::Counts counts = load.counts();
  const int n_answered = counts.n_answered - n_answered_before;
  std::cout << "capacity " << capacity << " requests/s; in "
            << absl::ToDoubleSeconds(load_time) << " s "
            << counts.n_sent - n_answered_before << " sent, " << n_answered
            << " answered, " << counts.n_refused << " refused, "
            << counts.n_too_late << " too late; coordinator " << before_kb
            << " kB, at most " << most_kb << " kB\n";
  EXPECT_EQ(counts.first_wrong, "");
  EXPECT_EQ(counts.n_sent,
            counts.n_answered + counts.n_refused + counts.n_too_late);
  // It was an overload, and the cluster went on working.
  EXPECT_GT(counts.n_refused, n_answered);
  EXPECT_GT(n_answered, 0);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  EXPECT_LE(most_kb - before_kb, kGrowthMaxKb);
#endif

  const absl::Time patience = absl::Now() + absl::Seconds(60);
  while (BlocksInUse(cluster) > 0) ASSERT_LT(absl::Now(), patience);
}

}  // namespace
}  // namespace tern
