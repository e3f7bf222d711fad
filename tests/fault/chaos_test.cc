// Workers are killed, stopped for a while and told to leave, at random, while
// clients stream. Every stream must end as it would have undisturbed.
//
// TERN_CHAOS_FAULTS says how many faults there are, TERN_CHAOS_SEED which ones;
// the seed of a run is printed. What a fault meets depends on timing all the
// same.

#include <signal.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "grpcpp/client_context.h"
#include "gtest/gtest.h"
#include "proto/tern/v1/inference.pb.h"
#include "tests/integration/local_cluster.h"

namespace tern {
namespace {

constexpr int kWorkers = 5;  // two pipelines of two stages, and a spare
constexpr int kClients = 6;
constexpr absl::Duration kPatience = absl::Minutes(5);

int64_t FromEnvironment(const char* name, int64_t fallback) {
  const char* text = getenv(name);
  int64_t value = fallback;
  if (text != nullptr) {
    EXPECT_TRUE(absl::SimpleAtoi(text, &value)) << name << "=" << text;
  }
  return value;
}

// Everything that a replay could get wrong.
v1::StreamGenerateRequest RequestOf(int kind) {
  v1::StreamGenerateRequest stream;
  v1::GenerateRequest& request = *stream.mutable_request();
  const std::vector<std::string> prompts = {
      "ROMEO:\n", "JULIET:\nO Romeo, Romeo!\n\nROMEO:\n",
      "KING RICHARD III:\nNow is the winter of our discontent\n",
      "First Citizen:\nBefore we proceed any further, hear me speak.\n\n"};
  request.set_text(prompts[kind % prompts.size()]);
  request.mutable_sampling()->set_temperature(kind % 3 == 0 ? 0 : 0.8f);
  request.mutable_sampling()->set_seed(kind);
  if (kind % 2 == 1) request.mutable_sampling()->set_frequency_penalty(0.3f);
  if (kind % 5 == 2) request.mutable_sampling()->set_sample_count(2);
  if (kind % 4 == 3) request.mutable_response_options()->set_logprobs(1);
  request.mutable_response_options()->set_return_token_ids(true);
  request.mutable_stopping()->set_max_output_tokens(60 + 40 * (kind % 4));
  return stream;
}
constexpr int kKinds = 12;

// What a stream said: tokens and log-probabilities of each candidate, whatever
// messages they came in.
struct Answer {
  std::vector<std::vector<int32_t>> tokens;
  std::vector<std::vector<float>> logprobs;
  bool operator==(const Answer& other) const {
    return tokens == other.tokens && logprobs == other.logprobs;
  }
};

class Chaos {
 public:
  explicit Chaos(LocalCluster* cluster) : cluster_(*cluster) {}

  // One stream. Called anew while nothing of it has come and no pipeline serves
  // just then.
  Answer Ask(int kind) {
    const absl::Time deadline = absl::Now() + kPatience;
    while (true) {
      grpc::ClientContext context;
      context.set_deadline(absl::ToChronoTime(deadline));
      auto reader =
          cluster_.inference().StreamGenerate(&context, RequestOf(kind));
      v1::StreamGenerateResponse response;
      Answer answer;
      bool begun = false;
      absl::Time last = absl::Now();
      while (reader->Read(&response)) {
        begun = true;
        Take(response.delta(), &answer);
        const absl::Time now = absl::Now();
        absl::MutexLock lock(&mu_);
        ++n_messages_;
        longest_pause_ = std::max(longest_pause_, now - last);
        last = now;
      }
      const grpc::Status status = reader->Finish();
      if (status.ok()) return answer;
      const bool again =
          !begun && status.error_code() == grpc::StatusCode::UNAVAILABLE;
      if (!again || absl::Now() > deadline) {
        ADD_FAILURE() << "a stream of kind " << kind << " ended after "
                      << answer.tokens.size() << " candidates with "
                      << status.error_code() << ": " << status.error_message();
        return answer;
      }
      n_retries_ += 1;
    }
  }

  // Asks and compares until Stop().
  void Client(int first, const std::vector<Answer>& expected) {
    for (int i = first; !stopping_; ++i) {
      const int kind = i % kKinds;
      EXPECT_TRUE(Ask(kind) == expected[kind]) << "kind " << kind;
      ++n_answers_;
      if (::testing::Test::HasFailure()) stopping_ = true;
    }
  }

  // Waits until so many more messages have come, or the clients are done.
  void AwaitMessages(int n) {
    absl::MutexLock lock(&mu_);
    const int64_t until = n_messages_ + n;
    const auto come = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
      return n_messages_ >= until || stopping_;
    };
    EXPECT_TRUE(mu_.AwaitWithTimeout(absl::Condition(&come), kPatience))
        << "nothing moves any more" << cluster_.Logs();
  }

  void Fault(std::mt19937* random) {
    const auto draw = [random](int n) {
      return static_cast<int>((*random)() % n);
    };
    const int victim = draw(kWorkers);
    if (stopped_.count(victim) > 0) return Continue(victim);
    switch (draw(4)) {
      case 0:
        cluster_.worker(victim).Signal(SIGSTOP);
        stopped_.insert(victim);
        // Never all but one: somebody has to serve.
        if (stopped_.size() > 2) Continue(*stopped_.begin());
        return;
      case 1:
        cluster_.worker(victim).Signal(SIGTERM);
        break;
      default:
        cluster_.worker(victim).Signal(SIGKILL);
        break;
    }
    const absl::StatusOr<int> ended =
        cluster_.worker(victim).Wait(absl::Minutes(1));
    EXPECT_TRUE(ended.ok()) << ended.status();
    EXPECT_TRUE(cluster_.StartWorker(victim).ok());
  }

  void ContinueAll() {
    while (!stopped_.empty()) Continue(*stopped_.begin());
  }
  void Stop() { stopping_ = true; }

  int64_t n_answers() const { return n_answers_; }
  // Between two messages of a stream, or before its first.
  absl::Duration longest_pause() const ABSL_LOCKS_EXCLUDED(mu_) {
    absl::MutexLock lock(&mu_);
    return longest_pause_;
  }
  int64_t n_retries() const { return n_retries_; }

 private:
  static void Take(const v1::Candidate& delta, Answer* answer) {
    const size_t index = delta.index();
    if (answer->tokens.size() <= index) {
      answer->tokens.resize(index + 1);
      answer->logprobs.resize(index + 1);
    }
    for (const int32_t id : delta.token_ids()) {
      answer->tokens[index].push_back(id);
    }
    for (const v1::TokenLogprob& token : delta.logprobs()) {
      answer->logprobs[index].push_back(token.logprob());
    }
  }

  void Continue(int worker) {
    cluster_.worker(worker).Signal(SIGCONT);
    stopped_.erase(worker);
  }

  LocalCluster& cluster_;
  std::set<int> stopped_;
  std::atomic<bool> stopping_{false};
  std::atomic<int64_t> n_answers_{0};
  std::atomic<int64_t> n_retries_{0};
  mutable absl::Mutex mu_;
  int64_t n_messages_ ABSL_GUARDED_BY(mu_) = 0;
  absl::Duration longest_pause_ ABSL_GUARDED_BY(mu_);
};

TEST(Chaos, EveryStreamEndsAsItWouldHaveUndisturbed) {
  const int64_t n_faults = FromEnvironment("TERN_CHAOS_FAULTS", 12);
  const int64_t seed =
      FromEnvironment("TERN_CHAOS_SEED", std::random_device()());
  std::cout << "TERN_CHAOS_FAULTS=" << n_faults << " TERN_CHAOS_SEED=" << seed
            << std::endl;
  SCOPED_TRACE(absl::StrCat("TERN_CHAOS_SEED=", seed));
  std::mt19937 random(static_cast<uint32_t>(seed));

  LocalCluster::Options options;
  options.stages = 2;
  options.workers = kWorkers;
  // Few enough blocks that sequences are pre-empted, too.
  options.coordinator_flags = {"--kv_cache_tokens=1024"};
  options.worker_flags = {"--threads=1"};
  auto started = LocalCluster::Start(options);
  ASSERT_TRUE(started.ok()) << started.status();
  LocalCluster& cluster = **started;
  Chaos chaos(&cluster);
  std::vector<Answer> expected;
  for (int kind = 0; kind < kKinds; ++kind) expected.push_back(chaos.Ask(kind));

  std::vector<std::thread> clients;
  for (int i = 0; i < kClients; ++i) {
    clients.emplace_back([&, i] { chaos.Client(2 * i, expected); });
  }
  const absl::Time begin = absl::Now();
  for (int64_t i = 0; i < n_faults && !HasFailure(); ++i) {
    chaos.AwaitMessages(1 + static_cast<int>(random() % 400));
    chaos.Fault(&random);
  }
  chaos.ContinueAll();
  chaos.AwaitMessages(100);
  chaos.Stop();
  for (std::thread& client : clients) client.join();
  std::cout << n_faults << " faults in " << absl::Now() - begin << ": "
            << chaos.n_answers() << " answers compared, " << chaos.n_retries()
            << " calls made anew because no pipeline served, longest pause "
            << chaos.longest_pause() << std::endl;
  EXPECT_GT(chaos.n_answers(), 0);
  if (HasFailure()) std::cout << cluster.Logs();
}

}  // namespace
}  // namespace tern
