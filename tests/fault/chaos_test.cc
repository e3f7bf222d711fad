// Workers are killed, stopped for a while and told to leave, the network falls
// apart, is slow, and loses, repeats and damages messages, at random, while
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
#include <iterator>
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
#include "tests/testing/fault_proxy.h"

namespace tern {
namespace {

constexpr int kWorkers = 5;  // two pipelines of two stages, and a spare
constexpr int kClients = 6;
constexpr absl::Duration kPatience = absl::Minutes(5);
// How long what is stopped or cut off may keep everybody from going on.
constexpr absl::Duration kStandstill = absl::Seconds(5);

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

  // Waits until so many more messages have come, or the clients are done. What
  // is cut off or stopped comes back when nothing moves because of it.
  void AwaitMessages(int n) {
    const absl::Time deadline = absl::Now() + kPatience;
    const int64_t until = n_messages() + n;
    while (!MessagesCome(until, kStandstill)) {
      if (HealOne()) continue;
      if (absl::Now() < deadline) continue;
      ADD_FAILURE() << "nothing moves any more" << cluster_.Logs();
      stopping_ = true;
    }
  }

  // Does what a draw says to a worker drawn, or ends what it suffers from.
  void Fault(std::mt19937* random) {
    const auto draw = [random](int n) {
      return static_cast<int>((*random)() % n);
    };
    EndDelays();
    const int victim = draw(kWorkers);
    int ticket = draw(SumOfWeights());
    size_t which = 0;
    while (ticket >= kFaults[which].weight) ticket -= kFaults[which++].weight;
    // Always drawn, so that the rest of the schedule does not depend on it.
    const int detail = draw(1 << 20);
    const uint64_t bit = draw(1 << 20);
    if (disturbed_.count(victim) > 0) return HealWorker(victim);
    ++n_of_[which];
    FaultProxy& proxy = cluster_.proxy(victim);
    switch (kFaults[which].what) {
      case What::kKill:
        cluster_.worker(victim).Signal(SIGKILL);
        return StartAgain(victim);
      case What::kLeave:
        cluster_.worker(victim).Signal(SIGTERM);
        return StartAgain(victim);
      case What::kStop:
        cluster_.worker(victim).Signal(SIGSTOP);
        return Disturb(victim);
      case What::kPartition:
        if (detail % 4 == 3) {
          proxy.CutOnly("TransferHiddenStates");
          proxy.Cut();
        } else {
          if (detail % 4 != 1) proxy.Cut(FaultProxy::Way::kThere);
          if (detail % 4 != 2) proxy.Cut(FaultProxy::Way::kBack);
        }
        return Disturb(victim);
      case What::kDelay:
        proxy.Delay(absl::Milliseconds(1 + detail % 40));
        delayed_.insert(victim);
        return;
      case What::kBreak:
        proxy.BreakStreams();
        return;
      case What::kMessage:
        MessageFaultAt(victim, detail, bit);
        return;
    }
  }

  // Everything works again.
  void EndAll() {
    EndDelays();
    while (HealOne()) {
    }
    for (int i = 0; i < kWorkers; ++i) cluster_.proxy(i).ClearFaults();
    cluster_.coordinator_proxy().ClearFaults();
  }

  static std::string Weights() {
    std::string text;
    for (const auto& fault : kFaults) {
      absl::StrAppend(&text, text.empty() ? "" : ", ", fault.name, " ",
                      fault.weight, "/", SumOfWeights());
    }
    return text;
  }
  std::string Counts() const {
    std::string text;
    for (size_t i = 0; i < std::size(kFaults); ++i) {
      absl::StrAppend(&text, i == 0 ? "" : ", ", n_of_[i], " ",
                      kFaults[i].name);
    }
    return text;
  }
  // Messages that were damaged, lost or repeated.
  int64_t n_message_faults() const {
    int64_t n = cluster_.coordinator_proxy().n_happened();
    for (int i = 0; i < kWorkers; ++i) n += cluster_.proxy(i).n_happened();
    return n;
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

  enum class What {
    kKill,
    kLeave,
    kStop,
    kPartition,
    kDelay,
    kBreak,
    kMessage,
  };
  struct Weighted {
    What what;
    const char* name;
    int weight;
  };
  static constexpr Weighted kFaults[] = {
      {What::kKill, "kills", 5},
      {What::kLeave, "leaves", 2},
      {What::kStop, "stops", 3},
      {What::kPartition, "partitions", 4},
      {What::kDelay, "delays", 3},
      {What::kBreak, "broken connections", 2},
      {What::kMessage, "damaged, lost or repeated messages", 9},
  };
  static int SumOfWeights() {
    int sum = 0;
    for (const auto& fault : kFaults) sum += fault.weight;
    return sum;
  }

  void MessageFaultAt(int worker, int detail, uint64_t bit) {
    using Kind = FaultProxy::Kind;
    using Way = FaultProxy::Way;
    struct Link {
      bool to_worker;
      const char* method;
      Way way;
    };
    static constexpr Link kLinks[] = {
        {true, "ExecuteSteps", Way::kThere},
        {true, "ExecuteSteps", Way::kBack},
        {true, "TransferHiddenStates", Way::kThere},
        {true, "TransferSampledTokens", Way::kThere},
        {true, "LoadStage", Way::kThere},
        {false, "SendHeartbeat", Way::kThere},
        {false, "SendHeartbeat", Way::kBack},
        {false, "RegisterWorker", Way::kThere},
    };
    const Link& link = kLinks[detail % std::size(kLinks)];
    detail /= std::size(kLinks);
    const bool is_stream = link.to_worker && link.method[0] != 'L';
    // A call of one request has none to repeat but itself.
    constexpr Kind kKinds[] = {Kind::kCorrupt, Kind::kCorrupt, Kind::kDuplicate,
                               Kind::kSwallow};
    Kind kind = kKinds[detail % std::size(kKinds)];
    if (kind == Kind::kDuplicate && !is_stream) {
      kind = link.way == Way::kThere ? Kind::kRepeatCall : Kind::kCorrupt;
    }
    // A call whose only message is lost is a call that breaks.
    if (kind == Kind::kSwallow && !is_stream) kind = Kind::kBreakStream;
    FaultProxy& proxy =
        link.to_worker ? cluster_.proxy(worker) : cluster_.coordinator_proxy();
    proxy.Add({kind, link.method, link.way, bit});
  }

  void StartAgain(int worker) {
    const absl::StatusOr<int> ended =
        cluster_.worker(worker).Wait(absl::Minutes(1));
    EXPECT_TRUE(ended.ok()) << ended.status();
    EXPECT_TRUE(cluster_.StartWorker(worker).ok());
  }

  // Never all but one: somebody has to serve.
  void Disturb(int worker) {
    disturbed_.insert(worker);
    if (disturbed_.size() > 2) HealOne();
  }
  bool HealOne() {
    if (disturbed_.empty()) return false;
    HealWorker(*disturbed_.begin());
    return true;
  }
  void HealWorker(int worker) {
    cluster_.worker(worker).Signal(SIGCONT);
    cluster_.proxy(worker).Heal();
    disturbed_.erase(worker);
  }
  void EndDelays() {
    for (const int worker : delayed_) {
      cluster_.proxy(worker).Delay(absl::ZeroDuration());
    }
    delayed_.clear();
  }

  int64_t n_messages() const ABSL_LOCKS_EXCLUDED(mu_) {
    absl::MutexLock lock(&mu_);
    return n_messages_;
  }
  bool MessagesCome(int64_t until, absl::Duration timeout) const
      ABSL_LOCKS_EXCLUDED(mu_) {
    absl::MutexLock lock(&mu_);
    const auto come = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
      return n_messages_ >= until || stopping_;
    };
    return mu_.AwaitWithTimeout(absl::Condition(&come), timeout);
  }

  LocalCluster& cluster_;
  std::set<int> disturbed_;  // stopped or cut off
  std::set<int> delayed_;
  int64_t n_of_[std::size(kFaults)] = {};
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
            << ": " << Chaos::Weights() << std::endl;
  SCOPED_TRACE(absl::StrCat("TERN_CHAOS_SEED=", seed));
  std::mt19937 random(static_cast<uint32_t>(seed));

  LocalCluster::Options options;
  options.stages = 2;
  options.workers = kWorkers;
  options.proxies = true;
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
  chaos.EndAll();
  chaos.AwaitMessages(100);
  chaos.Stop();
  for (std::thread& client : clients) client.join();
  std::cout << n_faults << " faults in " << absl::Now() - begin << ": "
            << chaos.n_answers() << " answers compared, " << chaos.n_retries()
            << " calls made anew because no pipeline served, longest pause "
            << chaos.longest_pause() << "; " << chaos.Counts() << ", of which "
            << chaos.n_message_faults() << " met a message" << std::endl;
  EXPECT_GT(chaos.n_answers(), 0);
  if (HasFailure()) std::cout << cluster.Logs();
}

}  // namespace
}  // namespace tern
