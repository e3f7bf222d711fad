#include "coordinator/engine.h"

#include <deque>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "coordinator/testing/toy_model.h"
#include "gtest/gtest.h"
#include "util/fake_clock.h"

namespace tern {
namespace {

constexpr int kVocab = 1000;
constexpr absl::Duration kPatience = absl::Seconds(30);

ModelConfig Config() {
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

 private:
  void Take() {
    TokenStream::Taken taken;
    stream_->Take(&taken);
    absl::MutexLock lock(&mu_);
    tokens_.insert(tokens_.end(), taken.tokens.begin(), taken.tokens.end());
    if (taken.end.has_value()) end_ = std::move(taken.end);
  }

  absl::Mutex mu_;
  std::vector<int32_t> tokens_ ABSL_GUARDED_BY(mu_);
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

  int SlowestStage() override { return 0; }

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

int BlocksInUse(const Engine::Snapshot& snapshot) {
  int n = 0;
  for (const auto& pipeline : snapshot.pipelines) {
    n += pipeline.kv_block_in_use_count;
  }
  return n;
}

class EngineTest : public ::testing::Test {
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
    r.numerics_class = "cpu-1";
    r.memory_bytes = int64_t{1} << 30;
    r.thread_count = 1;
    r.supports_step_token_source = takes_sampled_tokens;
    r.models = {"toy"};
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

  Engine::Options options_;
  FakeClock clock_;
  FakeCluster cluster_;
  std::map<std::string, int64_t> leases_;
  std::unique_ptr<Engine> engine_;
};

using Phase = Engine::Phase;

TEST_F(EngineTest, AnswersARequestAndFreesItsBlocks) {
  StartEngine(1);
  AwaitPhase(Phase::kReady);
  Reader reader;
  Submit(Ask(&reader, "a", 50, 20));
  EXPECT_TRUE(reader.End().ok());
  EXPECT_EQ(reader.tokens(), Answer(50, 20));
  const Engine::Snapshot snapshot = Inspect();
  EXPECT_EQ(BlocksInUse(snapshot), 0);
  EXPECT_EQ(snapshot.numerics_id, "cpu-1/int8");
}

TEST_F(EngineTest, LooksAheadWhereEveryStageTakesTokensOfEarlierSteps) {
  options_.placement.n_stages = 2;
  for (const bool last_does : {false, true}) {
    StartEngine(0);
    ASSERT_TRUE(Register("w0", 1, true).ok());
    ASSERT_TRUE(Register("w1", 1, last_does).ok());
    AwaitPhase(Phase::kReady);
    absl::MutexLock lock(&cluster_.mu);
    EXPECT_EQ(cluster_.specs.back().looks_ahead, last_does);
  }
}

TEST_F(EngineTest, RefusesAtOnceWithoutWorkersAndSaysHowManyAreMissing) {
  options_.placement.n_stages = 3;
  StartEngine(2);
  Reader reader;
  Submit(Ask(&reader, "a", 5, 5));
  const absl::Status status = reader.End();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_NE(status.message().find("2 of 3 workers"), absl::string_view::npos)
      << status;
}

TEST_F(EngineTest, RefusesWhileLoadingAndSaysHowFarItIs) {
  {
    absl::MutexLock lock(&cluster_.mu);
    cluster_.hold_loading = true;
  }
  StartEngine(1);
  AwaitPhase(Phase::kLoading);
  Await([](const auto& s) {
    return s.pipelines[0].stages[0].load_progress == 0.5;
  });
  Reader reader;
  Submit(Ask(&reader, "a", 5, 5));
  EXPECT_NE(reader.End().message().find("loaded to 50 %"),
            absl::string_view::npos);
}

TEST_F(EngineTest, GoesOnWithTheSameTokensWhenAStageIsReplaced) {
  options_.placement.n_stages = 2;
  StartEngine(3);
  AwaitPhase(Phase::kReady);
  Reader a, b;
  HoldResults(true);
  Submit(Ask(&a, "a", 40, 60));
  Submit(Ask(&b, "b", 3, 60));
  for (int i = 0; i < 20; ++i) {
    AwaitHeldResult();
    ReleaseResults(/*hold_next=*/true);
  }
  AwaitHeldResult();
  HoldResults(false);
  Lose(absl::UnavailableError("connection reset"));
  EXPECT_TRUE(a.End().ok());
  EXPECT_TRUE(b.End().ok());
  EXPECT_EQ(a.tokens(), Answer(40, 60));
  EXPECT_EQ(b.tokens(), Answer(3, 60));
  absl::MutexLock lock(&cluster_.mu);
  ASSERT_EQ(cluster_.specs.size(), 2u);
  EXPECT_GT(cluster_.specs[1].epoch, cluster_.specs[0].epoch);
  // w0's connection broke; the spare takes its place.
  EXPECT_EQ(cluster_.specs[1].placement.stages[0].worker_id, "w1");
  EXPECT_EQ(cluster_.specs[1].placement.stages[1].worker_id, "w2");
}

TEST_F(EngineTest, ReplaysAfterSeveralLossesInARow) {
  StartEngine(1);
  AwaitPhase(Phase::kReady);
  Reader reader;
  HoldResults(true);
  Submit(Ask(&reader, "a", 40, 30));
  for (int i = 0; i < 5; ++i) {
    AwaitHeldResult();
    ReleaseResults(/*hold_next=*/true);
    AwaitHeldResult();
    Lose(absl::InternalError("out of sorts"));
  }
  AwaitHeldResult();
  ReleaseResults();
  EXPECT_TRUE(reader.End().ok());
  EXPECT_EQ(reader.tokens(), Answer(40, 30));
}

TEST_F(EngineTest, ResultsOfAnEarlierEpochAreDropped) {
  StartEngine(1);
  AwaitPhase(Phase::kReady);
  Reader reader;
  HoldResults(true);
  Submit(Ask(&reader, "a", 4, 5));
  AwaitHeldResult();
  StepResult stale;
  Pipeline::Listener old;
  {
    absl::MutexLock lock(&cluster_.mu);
    stale = cluster_.held.front().result;
    stale.sampled[0].token_id = 1;
    old = cluster_.listeners.back();
  }
  Lose(absl::InternalError("out of sorts"));
  AwaitHeldResult();
  old.on_result(stale);
  ReleaseResults();
  EXPECT_TRUE(reader.End().ok());
  EXPECT_EQ(reader.tokens(), Answer(4, 5));
}

TEST_F(EngineTest, APipelineThatAnswersNonsenseIsGivenUp) {
  StartEngine(1);
  AwaitPhase(Phase::kReady);
  Reader reader;
  HoldResults(true);
  Submit(Ask(&reader, "a", 4, 5));
  AwaitHeldResult();
  HoldResults(false);
  {
    absl::MutexLock lock(&cluster_.mu);
    StepResult nonsense = cluster_.held.front().result;
    cluster_.held.clear();
    nonsense.sampled.clear();
    cluster_.listeners.back().on_result(nonsense);
  }
  EXPECT_TRUE(reader.End().ok());
  EXPECT_EQ(reader.tokens(), Answer(4, 5));
  absl::MutexLock lock(&cluster_.mu);
  EXPECT_EQ(cluster_.specs.size(), 2u);
}

// What computes, however long, is left alone; what does nothing while a step is
// due is not.
TEST_F(EngineTest, AWorkerThatDoesNothingLosesItsStage) {
  options_.hang_timeout = absl::Seconds(2);
  StartEngine(2);
  AwaitPhase(Phase::kReady);
  // Idle for long.
  clock_.Advance(absl::Seconds(5));
  Heartbeat("w0", 1);
  Heartbeat("w1", 1);
  Reader reader;
  HoldResults(true);
  Submit(Ask(&reader, "a", 4, 40));
  AwaitHeldResult();
  for (int layer = 2; layer < 12; ++layer) {
    clock_.Advance(absl::Seconds(1));
    Heartbeat("w0", layer);
    Heartbeat("w1", 1);
  }
  {
    absl::MutexLock lock(&cluster_.mu);
    EXPECT_EQ(cluster_.specs.size(), 2u);  // both workers serve
    cluster_.held.clear();
    cluster_.hold_results = false;
  }
  clock_.Advance(absl::Seconds(1.9));
  Heartbeat("w0", 11);
  EXPECT_EQ(Inspect().pipelines.size(), 2u);
  clock_.Advance(absl::Seconds(0.2));
  Heartbeat("w0", 11);
  EXPECT_TRUE(reader.End().ok());
  EXPECT_EQ(reader.tokens(), Answer(4, 40));
  const Engine::Snapshot snapshot = Inspect();
  EXPECT_TRUE(snapshot.workers[0].worker.hung);
  EXPECT_EQ(snapshot.workers[0].pipeline_id, "");
  EXPECT_FALSE(snapshot.workers[1].worker.hung);
  // It comes back when it has done something.
  Heartbeat("w0", 12);
  Await([](const auto& s) { return s.pipelines.size() == 2; });
}

TEST_F(EngineTest, WhatRunsOnADrainingWorkerMovesToAnother) {
  StartEngine(2);
  Await([](const auto& s) {
    return s.pipelines.size() == 2 && s.pipelines[1].phase == Phase::kReady;
  });
  EXPECT_FALSE(Heartbeat("w0"));
  HoldResults(true);
  Reader a, b;
  Submit(Ask(&a, "a", 4, 40));
  Submit(Ask(&b, "b", 5, 40));
  Await([](const auto& s) { return s.n_running == 2; });
  EXPECT_FALSE(Heartbeat("w0", 0, /*is_draining=*/true));
  const Engine::Snapshot snapshot =
      Await([](const auto& s) { return s.pipelines.size() == 1; });
  EXPECT_EQ(snapshot.workers[1].pipeline_id, snapshot.pipelines[0].id);
  EXPECT_TRUE(Heartbeat("w0", 0, true));
  ReleaseResults();
  EXPECT_TRUE(a.End().ok());
  EXPECT_EQ(a.tokens(), Answer(4, 40));
  EXPECT_TRUE(b.End().ok());
  EXPECT_EQ(b.tokens(), Answer(5, 40));
  // It does not get a stage again, unless it thinks better of it.
  EXPECT_EQ(Inspect().pipelines.size(), 1u);
  Heartbeat("w0");
  Await([](const auto& s) { return s.pipelines.size() == 2; });
}

TEST_F(EngineTest, ADrainingWorkersNeighboursGoOnWithASpare) {
  options_.placement.n_stages = 2;
  StartEngine(3);
  AwaitPhase(Phase::kReady);
  HoldResults(true);
  Reader reader;
  Submit(Ask(&reader, "a", 4, 40));
  AwaitHeldResult();
  Heartbeat("w1", 0, /*is_draining=*/true);
  Await([](const auto& s) {
    return s.workers[1].pipeline_id.empty() && s.workers[2].stage >= 0;
  });
  EXPECT_TRUE(Heartbeat("w1", 0, true));
  ReleaseResults();
  EXPECT_TRUE(reader.End().ok());
  EXPECT_EQ(reader.tokens(), Answer(4, 40));
}

TEST_F(EngineTest, TheLastWorkerEndsWhatItHasBeforeItLeaves) {
  StartEngine(1);
  AwaitPhase(Phase::kReady);
  HoldResults(true);
  Reader a, b;
  Submit(Ask(&a, "a", 4, 5));
  AwaitHeldResult();
  EXPECT_FALSE(Heartbeat("w0", 0, /*is_draining=*/true));
  Submit(Ask(&b, "b", 4, 5));
  EXPECT_EQ(Await([](const auto& s) { return s.n_waiting == 1; }).n_running, 1);
  EXPECT_FALSE(Heartbeat("w0", 0, true));
  ReleaseResults();
  EXPECT_TRUE(a.End().ok());
  EXPECT_EQ(a.tokens(), Answer(4, 5));
  Await([](const auto& s) { return s.pipelines.empty(); });
  EXPECT_TRUE(Heartbeat("w0", 0, true));
  // The other waits for the next worker.
  ASSERT_TRUE(Register("w1", 1).ok());
  EXPECT_TRUE(b.End().ok());
  EXPECT_EQ(b.tokens(), Answer(4, 5));
}

TEST_F(EngineTest, WhatComesAfterALossWaitsForTheNextPipeline) {
  StartEngine(1);
  AwaitPhase(Phase::kReady);
  {
    absl::MutexLock lock(&cluster_.mu);
    cluster_.hold_loading = true;
  }
  Lose(absl::InternalError("out of sorts"));
  AwaitPhase(Phase::kLoading);
  Reader early, late;
  Submit(Ask(&early, "a", 4, 5));
  Await([](const auto& s) { return s.n_waiting == 1; });
  Pipeline::Listener listener;
  {
    absl::MutexLock lock(&cluster_.mu);
    listener = cluster_.listeners.back();
  }
  listener.on_ready(std::vector<Pipeline::StageInfo>(1));
  EXPECT_TRUE(early.End().ok());
  EXPECT_EQ(early.tokens(), Answer(4, 5));
  // Not for ever, though.
  Lose(absl::InternalError("out of sorts"));
  AwaitPhase(Phase::kLoading);
  clock_.Advance(absl::Seconds(30));
  Submit(Ask(&late, "b", 4, 5));
  EXPECT_TRUE(absl::IsUnavailable(late.End()));
}

TEST_F(EngineTest, ASilentWorkerIsLostWithItsLease) {
  StartEngine(2);
  AwaitPhase(Phase::kReady);
  Reader reader;
  HoldResults(true);
  Submit(Ask(&reader, "a", 4, 40));
  AwaitHeldResult();
  // w0, which hangs, says nothing any more; w1 does.
  clock_.Advance(absl::Seconds(6));
  Heartbeat("w1");
  {
    absl::MutexLock lock(&cluster_.mu);
    cluster_.held.clear();
    cluster_.hold_results = false;
  }
  clock_.Advance(absl::Seconds(6));
  engine_->Poke();
  EXPECT_TRUE(reader.End().ok());
  EXPECT_EQ(reader.tokens(), Answer(4, 40));
  absl::MutexLock lock(&cluster_.mu);
  EXPECT_EQ(cluster_.specs.back().placement.stages[0].worker_id, "w1");
}

TEST_F(EngineTest, EveryFullSetOfWorkersServes) {
  options_.placement.n_stages = 2;
  StartEngine(5);
  Engine::Snapshot snapshot =
      Await([](const auto& s) { return s.pipelines.size() == 2; });
  EXPECT_EQ(snapshot.pipelines[0].id, "toy/0");
  EXPECT_EQ(snapshot.pipelines[1].id, "toy/1");
  EXPECT_EQ(snapshot.workers[2].pipeline_id, "toy/1");
  EXPECT_EQ(snapshot.workers[2].stage, 0);
  EXPECT_EQ(snapshot.workers[4].stage, -1);
  ASSERT_TRUE(Register("w5", 1).ok());
  Await([](const auto& s) {
    return s.pipelines.size() == 3 && s.pipelines[2].phase == Phase::kReady;
  });
  HoldResults(true);
  std::vector<std::unique_ptr<Reader>> readers;
  for (int i = 0; i < 6; ++i) {
    readers.push_back(std::make_unique<Reader>());
    Engine::Request request =
        Ask(readers[i].get(), absl::StrCat(i), 10 + i, 20);
    Submit(std::move(request));
  }
  Await([](const auto& s) {
    return s.pipelines[0].n_running == 2 && s.pipelines[1].n_running == 2 &&
           s.pipelines[2].n_running == 2;
  });
  ReleaseResults();
  for (int i = 0; i < 6; ++i) {
    EXPECT_TRUE(readers[i]->End().ok());
    EXPECT_EQ(readers[i]->tokens(), Answer(10 + i, 20));
  }
}

TEST_F(EngineTest, ALostPipelinesRequestsGoOnWithTheOthers) {
  StartEngine(2);
  Await([](const auto& s) {
    return s.pipelines.size() == 2 && s.pipelines[1].phase == Phase::kReady;
  });
  HoldResults(true);
  Reader a, b;
  Submit(Ask(&a, "a", 4, 40));
  Engine::Request other = Ask(&b, "b", 5, 40);
  Submit(std::move(other));
  Await([](const auto& s) {
    return s.pipelines[0].n_running == 1 && s.pipelines[1].n_running == 1;
  });
  for (int i = 0; i < 5; ++i) {
    AwaitHeldResult();
    ReleaseResults(/*hold_next=*/true);
  }
  AwaitHeldResult();
  Pipeline::Listener first;
  {
    absl::MutexLock lock(&cluster_.mu);
    first = cluster_.listeners[0];
  }
  first.on_lost(0, absl::UnavailableError("connection reset"));
  Await([](const auto& s) { return s.pipelines.size() == 1; });
  EXPECT_EQ(Inspect().phase, Phase::kReady);
  EXPECT_EQ(Inspect().pipelines[0].id, "toy/1");
  ReleaseResults();
  EXPECT_TRUE(a.End().ok());
  EXPECT_TRUE(b.End().ok());
  EXPECT_EQ(a.tokens(), Answer(4, 40));
  EXPECT_EQ(b.tokens(), Answer(5, 40));
}

TEST_F(EngineTest, AWorkerThatCannotLoadDoesNotKeepOthersFromServing) {
  options_.placement.n_stages = 2;
  {
    absl::MutexLock lock(&cluster_.mu);
    cluster_.hold_loading = true;
  }
  StartEngine(3);
  AwaitPhase(Phase::kLoading);
  EXPECT_EQ(Inspect().pipelines[0].stages[0].placed.worker_id, "w0");
  Lose(absl::NotFoundError("no file"));
  AwaitPhase(Phase::kWaiting);
  {
    absl::MutexLock lock(&cluster_.mu);
    cluster_.hold_loading = false;
  }
  clock_.Advance(absl::Seconds(1));
  AwaitPhase(Phase::kReady);
  EXPECT_EQ(Inspect().pipelines[0].stages[0].placed.worker_id, "w1");
}

TEST_F(EngineTest, WaitingForWorkersEndsWithUnavailable) {
  StartEngine(1);
  AwaitPhase(Phase::kReady);
  Reader reader;
  HoldResults(true);
  Submit(Ask(&reader, "a", 4, 40));
  AwaitHeldResult();
  Lose(absl::UnavailableError("connection reset"));
  AwaitPhase(Phase::kWaiting);
  EXPECT_EQ(Inspect().n_waiting, 1);
  clock_.Advance(options_.unavailable_after);
  engine_->Poke();
  const absl::Status status = reader.End();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_NE(status.message().find("0 of 1 worker"), absl::string_view::npos);
  EXPECT_NE(status.message().find("connection reset"), absl::string_view::npos);
}

TEST_F(EngineTest, ARestartedWorkerTakesItsPlaceAgain) {
  StartEngine(1);
  AwaitPhase(Phase::kReady);
  Reader reader;
  HoldResults(true);
  Submit(Ask(&reader, "a", 4, 40));
  AwaitHeldResult();
  EXPECT_EQ(Register("w0", 2).code(), absl::StatusCode::kAlreadyExists);
  Lose(absl::UnavailableError("connection reset"));
  AwaitPhase(Phase::kWaiting);
  HoldResults(false);
  ASSERT_TRUE(Register("w0", 2).ok());
  EXPECT_TRUE(reader.End().ok());
  EXPECT_EQ(reader.tokens(), Answer(4, 40));
}

TEST_F(EngineTest, LoadingIsTriedAgainWithPauses) {
  {
    absl::MutexLock lock(&cluster_.mu);
    cluster_.hold_loading = true;
  }
  StartEngine(1);
  AwaitPhase(Phase::kLoading);
  Lose(absl::NotFoundError("no file"));
  AwaitPhase(Phase::kWaiting);
  EXPECT_NE(Inspect().phase_text.find("no file"), std::string::npos);
  {
    absl::MutexLock lock(&cluster_.mu);
    EXPECT_EQ(cluster_.specs.size(), 1u);
    cluster_.hold_loading = false;
  }
  clock_.Advance(absl::Seconds(1));
  AwaitPhase(Phase::kReady);
}

TEST_F(EngineTest, ARequestIdIsTakenWhileItsRequestIsInProgress) {
  StartEngine(1);
  AwaitPhase(Phase::kReady);
  Reader first, again, other, later;
  HoldResults(true);
  Submit(Ask(&first, "a", 4, 5));
  Submit(Ask(&again, "a", 4, 5));
  EXPECT_EQ(again.End().code(), absl::StatusCode::kAlreadyExists);
  Engine::Request request = Ask(&other, "a", 4, 5);
  request.principal = "someone else";
  Submit(std::move(request));
  AwaitHeldResult();
  ReleaseResults();
  EXPECT_TRUE(first.End().ok());
  EXPECT_TRUE(other.End().ok());
  Submit(Ask(&later, "a", 4, 5));
  EXPECT_TRUE(later.End().ok());
}

TEST_F(EngineTest, AbortEndsARequestOfTheSamePrincipal) {
  StartEngine(1);
  AwaitPhase(Phase::kReady);
  Reader reader;
  HoldResults(true);
  Submit(Ask(&reader, "a", 4, 50));
  AwaitHeldResult();
  const auto abort = [this](const std::string& principal) {
    absl::Status status;
    absl::Notification done;
    engine_->Abort(principal, "a", [&](absl::Status s) {
      status = s;
      done.Notify();
    });
    done.WaitForNotification();
    return status;
  };
  EXPECT_EQ(abort("someone else").code(), absl::StatusCode::kNotFound);
  EXPECT_TRUE(abort("me").ok());
  EXPECT_EQ(abort("me").code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(reader.End().code(), absl::StatusCode::kCancelled);
  ReleaseResults();
  Await([this](const auto& s) {
    absl::MutexLock lock(&cluster_.mu);
    return BlocksInUse(s) == 0 && cluster_.n_sequences_on_workers == 0;
  });
}

TEST_F(EngineTest, CancelledRequestsLeaveNothingBehind) {
  StartEngine(1);
  AwaitPhase(Phase::kReady);
  Reader reader;
  HoldResults(true);
  const int64_t ticket = Submit(Ask(&reader, "a", 4, 50));
  AwaitHeldResult();
  engine_->Cancel(ticket);
  engine_->Cancel(ticket);
  ReleaseResults();
  Await([this](const auto& s) {
    absl::MutexLock lock(&cluster_.mu);
    return BlocksInUse(s) == 0 && s.n_running == 0 &&
           cluster_.n_sequences_on_workers == 0;
  });
}

TEST_F(EngineTest, DeadlinesEndRequests) {
  StartEngine(1);
  AwaitPhase(Phase::kReady);
  Reader reader;
  HoldResults(true);
  Engine::Request request = Ask(&reader, "a", 4, 50);
  request.parameters.deadline = clock_.Now() + absl::Seconds(3);
  Submit(std::move(request));
  AwaitHeldResult();
  clock_.Advance(absl::Seconds(3));
  engine_->Poke();
  EXPECT_EQ(reader.End().code(), absl::StatusCode::kDeadlineExceeded);
}

TEST_F(EngineTest, RequestsBeyondTheLimitAreRefusedAtOnce) {
  options_.max_requests = 2;
  StartEngine(1);
  AwaitPhase(Phase::kReady);
  Reader a, b, c;
  HoldResults(true);
  Submit(Ask(&a, "a", 4, 5));
  Submit(Ask(&b, "b", 4, 5));
  Submit(Ask(&c, "c", 4, 5));
  EXPECT_EQ(c.End().code(), absl::StatusCode::kResourceExhausted);
  AwaitHeldResult();
  ReleaseResults();
  EXPECT_TRUE(a.End().ok());
  EXPECT_TRUE(b.End().ok());
  Reader d;
  Submit(Ask(&d, "d", 4, 5));
  EXPECT_TRUE(d.End().ok());
}

TEST_F(EngineTest, AnswersOfOneRequestEndEachByItself) {
  StartEngine(1);
  AwaitPhase(Phase::kReady);
  Reader a, b, c, again;
  HoldResults(true);
  Engine::Request request = Ask(&a, "a", 4, 50);
  request.outputs.push_back(b.stream());
  request.outputs.push_back(c.stream());
  const int64_t ticket = Submit(std::move(request));
  AwaitHeldResult();
  EXPECT_EQ(Inspect().n_running, 3);
  // One that is not wanted any more does not end the others, nor is the name
  // free.
  engine_->Cancel(ticket + 1);
  Submit(Ask(&again, "a", 4, 5));
  EXPECT_EQ(again.End().code(), absl::StatusCode::kAlreadyExists);
  ReleaseResults();
  EXPECT_TRUE(a.End().ok());
  EXPECT_TRUE(c.End().ok());
  EXPECT_EQ(a.tokens(), Answer(4, 50));
  EXPECT_EQ(c.tokens(), Answer(4, 50));
  Reader later;
  Submit(Ask(&later, "a", 4, 5));
  EXPECT_TRUE(later.End().ok());
}

TEST_F(EngineTest, AbortAndDeadlineEndAllAnswersOfARequest) {
  StartEngine(1);
  AwaitPhase(Phase::kReady);
  Reader a, b, c, d;
  HoldResults(true);
  Engine::Request request = Ask(&a, "aborted", 4, 50);
  request.outputs.push_back(b.stream());
  Submit(std::move(request));
  request = Ask(&c, "late", 4, 50);
  request.outputs.push_back(d.stream());
  request.parameters.deadline = clock_.Now() + absl::Seconds(3);
  Submit(std::move(request));
  AwaitHeldResult();
  absl::Notification done;
  engine_->Abort("me", "aborted", [&done](absl::Status status) {
    EXPECT_TRUE(status.ok()) << status;
    done.Notify();
  });
  done.WaitForNotification();
  EXPECT_EQ(a.End().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(b.End().code(), absl::StatusCode::kCancelled);
  clock_.Advance(absl::Seconds(3));
  engine_->Poke();
  EXPECT_EQ(c.End().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(d.End().code(), absl::StatusCode::kDeadlineExceeded);
  ReleaseResults();
  Await([this](const auto& s) {
    absl::MutexLock lock(&cluster_.mu);
    return BlocksInUse(s) == 0 && cluster_.n_sequences_on_workers == 0;
  });
}

TEST_F(EngineTest, AnswersOfARequestAreAdmittedTogetherOrNotAtAll) {
  options_.max_requests = 3;
  StartEngine(1);
  AwaitPhase(Phase::kReady);
  Reader a, b, c, d;
  HoldResults(true);
  Engine::Request request = Ask(&a, "a", 4, 5);
  request.outputs.push_back(b.stream());
  Submit(std::move(request));
  request = Ask(&c, "c", 4, 5);
  request.outputs.push_back(d.stream());
  Submit(std::move(request));
  EXPECT_EQ(c.End().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(d.End().code(), absl::StatusCode::kResourceExhausted);
  AwaitHeldResult();
  EXPECT_EQ(Inspect().n_running, 2);
  ReleaseResults();
  EXPECT_TRUE(a.End().ok());
  EXPECT_TRUE(b.End().ok());
}

TEST_F(EngineTest, AFewBlocksServeManyRequestsByPreemption) {
  options_.placement.kv_cache_tokens = 128;
  StartEngine(1);
  AwaitPhase(Phase::kReady);
  std::vector<std::unique_ptr<Reader>> readers;
  for (int i = 0; i < 20; ++i) {
    readers.push_back(std::make_unique<Reader>());
    Submit(Ask(readers[i].get(), absl::StrCat(i), 10 + i, 60));
  }
  for (int i = 0; i < 20; ++i) {
    EXPECT_TRUE(readers[i]->End().ok());
    EXPECT_EQ(readers[i]->tokens(), Answer(10 + i, 60));
  }
  EXPECT_GT(Inspect().counters.preemptions, 0);
}

TEST_F(EngineTest, ShutdownEndsRequestsWithUnavailable) {
  StartEngine(1);
  AwaitPhase(Phase::kReady);
  Reader before, after;
  HoldResults(true);
  Submit(Ask(&before, "a", 4, 50));
  AwaitHeldResult();
  engine_->Shutdown();
  EXPECT_EQ(before.End().code(), absl::StatusCode::kUnavailable);
  Submit(Ask(&after, "b", 4, 50));
  EXPECT_EQ(after.End().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(Register("w9", 1).code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace tern
