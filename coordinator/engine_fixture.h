#ifndef COORDINATOR_ENGINE_FIXTURE_H_
#define COORDINATOR_ENGINE_FIXTURE_H_

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "coordinator/cluster_view.h"
#include "coordinator/engine.h"
#include "coordinator/pipeline.h"
#include "coordinator/step_plan.h"
#include "coordinator/testing/toy_model.h"
#include "coordinator/token_stream.h"
#include "gtest/gtest.h"
#include "model/model_config.h"
#include "model/step_times.h"
#include "util/fake_clock.h"

// An engine with toy workers behind fake pipelines, and a clock that the test
// moves.

namespace tern {

inline constexpr int kVocab = 1000;
inline constexpr absl::Duration kPatience = absl::Seconds(30);

inline ModelConfig Config() {
  ModelConfig config;
  config.n_layers = 4;
  config.hidden_size = 64;
  config.ffn_size = 128;
  config.n_heads = 4;
  config.n_kv_heads = 2;
  config.head_dim = 16;
  config.vocab_size = kVocab;
  config.context_length = 128;
  return config;
}

// Reads a token stream to its end.
class Reader {
 public:
  Reader() : stream_(std::make_shared<TokenStream>([this] { Take(); })) {}

  const std::shared_ptr<TokenStream>& stream() { return stream_; }

  // Waits for the end.
  absl::Status End() {
    absl::MutexLock lock(&mu_);
    const auto ended = [this]() ABSL_SHARED_LOCKS_REQUIRED(mu_) {
      return end_.has_value();
    };
    if (!mu_.AwaitWithTimeout(absl::Condition(&ended), kPatience)) {
      return absl::InternalError("the stream did not end");
    }
    return end_->status;
  }

  std::vector<int32_t> tokens() {
    absl::MutexLock lock(&mu_);
    return tokens_;
  }

  // "20 cpu-1/stored": from which token on, and what.
  std::vector<std::string> numerics_changes() {
    absl::MutexLock lock(&mu_);
    return numerics_changes_;
  }

 private:
  void Take() {
    TokenStream::Taken taken;
    stream_->Take(&taken);
    absl::MutexLock lock(&mu_);
    for (const NumericsChange& change : taken.numerics_changes) {
      numerics_changes_.push_back(absl::StrCat(tokens_.size() + change.n_tokens,
                                               " ", change.numerics_id));
    }
    tokens_.insert(tokens_.end(), taken.tokens.begin(), taken.tokens.end());
    if (taken.end.has_value()) end_ = std::move(taken.end);
  }

  absl::Mutex mu_;
  std::vector<int32_t> tokens_ ABSL_GUARDED_BY(mu_);
  std::vector<std::string> numerics_changes_ ABSL_GUARDED_BY(mu_);
  std::optional<SequenceEnd> end_ ABSL_GUARDED_BY(mu_);
  const std::shared_ptr<TokenStream> stream_;
};

// What the fake pipelines of a test share.
struct FakeCluster {
  absl::Mutex mu;
  // Results stay in here while it is set.
  bool hold_results ABSL_GUARDED_BY(mu) = false;
  // Stages do not report being loaded while it is set.
  bool hold_loading ABSL_GUARDED_BY(mu) = false;
  int slowest_stage ABSL_GUARDED_BY(mu) = 0;
  std::vector<Pipeline::Spec> specs ABSL_GUARDED_BY(mu);
  std::vector<Pipeline::Listener> listeners ABSL_GUARDED_BY(mu);
  // Results that are not told yet, and whom to.
  struct Held {
    Pipeline::Listener listener;
    StepResult result;
    void Tell() const { listener.on_result(result); }
  };
  std::deque<Held> held ABSL_GUARDED_BY(mu);
  std::string broken_rule ABSL_GUARDED_BY(mu);
  int n_sequences_on_workers ABSL_GUARDED_BY(mu) = 0;
};

// A pipeline of toy workers that answers at once, or when told to.
class FakePipeline : public Pipeline {
 public:
  FakePipeline(Spec spec, Listener listener, FakeCluster* cluster)
      : listener_(listener),
        worker_(spec.placement.kv_block_count, spec.kv_block_size,
                spec.max_step_tokens, kVocab),
        cluster_(cluster) {
    const size_t n_stages = spec.placement.stages.size();
    bool hold;
    {
      absl::MutexLock lock(&cluster_->mu);
      cluster_->specs.push_back(std::move(spec));
      cluster_->listeners.push_back(listener);
      hold = cluster_->hold_loading;
    }
    listener_.on_progress(0, 1, 2);
    if (!hold) listener_.on_ready(std::vector<StageInfo>(n_stages));
  }

  int SlowestStage() override {
    absl::MutexLock lock(&cluster_->mu);
    return cluster_->slowest_stage;
  }

  void Send(const StepPlan& plan) override {
    StepResult result;
    const absl::Status status = worker_.Run(plan, &result);
    absl::MutexLock lock(&cluster_->mu);
    if (!status.ok()) cluster_->broken_rule = std::string(status.message());
    cluster_->n_sequences_on_workers = worker_.n_sequences();
    cluster_->held.push_back({listener_, std::move(result)});
    if (cluster_->hold_results) return;
    for (const FakeCluster::Held& held : cluster_->held) held.Tell();
    cluster_->held.clear();
  }

 private:
  const Listener listener_;
  ToyWorker worker_;
  FakeCluster* const cluster_;
};

inline int BlocksInUse(const Engine::Snapshot& snapshot) {
  int n = 0;
  for (const auto& pipeline : snapshot.pipelines) {
    n += pipeline.kv_block_in_use_count;
  }
  return n;
}

class EngineFixture : public ::testing::Test {
 protected:
  void SetUp() override {
    options_.model = "toy";
    options_.config = Config();
    options_.placement.kv_cache_tokens = 2048;
    options_.scheduler.max_step_tokens = 32;
    options_.cluster.lease_duration = absl::Seconds(10);
    options_.unavailable_after = absl::Seconds(30);
    options_.hang_timeout = absl::InfiniteDuration();
  }

  void TearDown() override {
    engine_.reset();
    absl::MutexLock lock(&cluster_.mu);
    EXPECT_EQ(cluster_.broken_rule, "");
  }

  void StartEngine(int n_workers) {
    engine_ = std::make_unique<Engine>(
        options_,
        [this](Pipeline::Spec spec, Pipeline::Listener listener) {
          return std::make_unique<FakePipeline>(std::move(spec),
                                                std::move(listener), &cluster_);
        },
        &clock_);
    for (int i = 0; i < n_workers; ++i) {
      ASSERT_TRUE(Register(absl::StrCat("w", i), 1).ok());
    }
  }

  absl::Status Register(const std::string& id, int64_t incarnation,
                        bool takes_sampled_tokens = false) {
    WorkerRegistration r;
    r.worker_id = id;
    r.incarnation = incarnation;
    r.protocol_version = kProtocolVersion;
    r.address = absl::StrCat("127.0.0.1:", 7000 + id.back());
    r.numerics_class = numerics_class_;
    r.thread_count = 1;
    r.supports_step_token_source = takes_sampled_tokens;
    r.models = {"toy"};
    r.step_times = step_times_;
    r.memory_bytes = memory_bytes_;
    absl::Status status;
    absl::Notification done;
    engine_->RegisterWorker(r, [&](absl::StatusOr<Engine::Lease> lease) {
      status = lease.status();
      if (lease.ok()) leases_[id] = lease->epoch;
      done.Notify();
    });
    done.WaitForNotification();
    return status;
  }

  // Whether the worker may go.
  bool Heartbeat(const std::string& id, int64_t progress = 0,
                 bool is_draining = false) {
    bool released = false;
    absl::Notification done;
    engine_->SendHeartbeat({id, leases_.at(id), 0, progress, is_draining},
                           [&](absl::StatusOr<bool> is_released) {
                             EXPECT_TRUE(is_released.ok());
                             released = is_released.ok() && *is_released;
                             done.Notify();
                           });
    done.WaitForNotification();
    return released;
  }

  // Its steps take so many times as long as its step times say.
  void SlowDown(const std::string& id, double slowdown) {
    absl::Notification done;
    engine_->SendHeartbeat({id, leases_.at(id), 0, 0, false, slowdown},
                           [&](const absl::StatusOr<bool>& is_released) {
                             EXPECT_TRUE(is_released.ok());
                             done.Notify();
                           });
    done.WaitForNotification();
  }

  Engine::Snapshot Inspect() {
    Engine::Snapshot snapshot;
    absl::Notification done;
    engine_->Inspect([&](absl::StatusOr<Engine::Snapshot> got) {
      snapshot = *std::move(got);
      done.Notify();
    });
    done.WaitForNotification();
    return snapshot;
  }

  // Waits until a snapshot satisfies `is_so`.
  template <typename Predicate>
  Engine::Snapshot Await(Predicate is_so) {
    const absl::Time deadline = absl::Now() + kPatience;
    for (;;) {
      Engine::Snapshot snapshot = Inspect();
      if (is_so(snapshot)) return snapshot;
      if (absl::Now() > deadline) {
        ADD_FAILURE() << "did not come to be";
        return snapshot;
      }
    }
  }

  void AwaitPhase(Engine::Phase phase) {
    Await([phase](const auto& s) { return s.phase == phase; });
  }

  // Waits until a plan has been sent whose result is held back.
  void AwaitHeldResult() {
    absl::MutexLock lock(&cluster_.mu);
    const auto held = [this]() ABSL_SHARED_LOCKS_REQUIRED(cluster_.mu) {
      return !cluster_.held.empty();
    };
    ASSERT_TRUE(
        cluster_.mu.AwaitWithTimeout(absl::Condition(&held), kPatience));
  }

  void HoldResults(bool hold) {
    absl::MutexLock lock(&cluster_.mu);
    cluster_.hold_results = hold;
  }

  // Tells the engine the results held back so far, and goes on holding back
  // those that follow, or does not.
  void ReleaseResults(bool hold_next = false) {
    absl::MutexLock lock(&cluster_.mu);
    cluster_.hold_results = hold_next;
    for (const FakeCluster::Held& held : cluster_.held) held.Tell();
    cluster_.held.clear();
  }

  // Loses the current pipeline because of its first stage.
  void Lose(absl::Status why) {
    absl::MutexLock lock(&cluster_.mu);
    cluster_.held.clear();
    cluster_.listeners.back().on_lost(0, std::move(why));
  }

  Engine::Request Ask(Reader* reader, const std::string& id, int n_prompt,
                      int n_output) {
    Engine::Request request;
    request.principal = "me";
    request.request_id = id;
    request.parameters.prompt = Prompt(n_prompt);
    request.parameters.max_output_tokens = n_output;
    request.parameters.sampler.seed = 5;
    request.outputs = {reader->stream()};
    return request;
  }

  int64_t Submit(Engine::Request request) {
    const int64_t ticket =
        engine_->NewTickets(static_cast<int>(request.outputs.size()));
    engine_->Submit(ticket, std::move(request));
    return ticket;
  }

  static std::vector<int32_t> Prompt(int n) {
    std::vector<int32_t> prompt(n);
    for (int i = 0; i < n; ++i) prompt[i] = i * 7 % kVocab;
    return prompt;
  }
  static std::vector<int32_t> Answer(int n_prompt, int n) {
    return ToyAnswer(Prompt(n_prompt), 5, n, kVocab);
  }

  // Of workers that register from now on.
  StepTimes step_times_;
  int64_t memory_bytes_ = int64_t{1} << 30;
  std::string numerics_class_ = "cpu-1";

  Engine::Options options_;
  FakeClock clock_;
  FakeCluster cluster_;
  std::map<std::string, int64_t> leases_;
  std::unique_ptr<Engine> engine_;
};

using Phase = Engine::Phase;

}  // namespace tern

#endif  // COORDINATOR_ENGINE_FIXTURE_H_
