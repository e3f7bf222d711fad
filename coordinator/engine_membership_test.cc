// Workers that come, fail, hang and leave, and what becomes of requests then.

#include <deque>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "coordinator/engine.h"
#include "coordinator/engine_fixture.h"
#include "gtest/gtest.h"

namespace tern {
namespace {

class EngineMembershipTest : public EngineFixture {};

TEST_F(EngineMembershipTest,
       RefusesAtOnceWithoutWorkersAndSaysHowManyAreMissing) {
  options_.placement.n_stages = 3;
  StartEngine(2);
  Reader reader;
  Submit(Ask(&reader, "a", 5, 5));
  const absl::Status status = reader.End();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_NE(status.message().find("2 of 3 workers"), absl::string_view::npos)
      << status;
}

TEST_F(EngineMembershipTest, RefusesWhileLoadingAndSaysHowFarItIs) {
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

TEST_F(EngineMembershipTest, GoesOnWithTheSameTokensWhenAStageIsReplaced) {
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
  // w0's connection broke; the spare takes its place, and w1 keeps its own and
  // the weights that it holds.
  EXPECT_EQ(cluster_.specs[1].placement.stages[0].worker_id, "w2");
  EXPECT_EQ(cluster_.specs[1].placement.stages[1].worker_id, "w1");
}

TEST_F(EngineMembershipTest, ReplaysAfterSeveralLossesInARow) {
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

TEST_F(EngineMembershipTest, ResultsOfAnEarlierEpochAreDropped) {
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

TEST_F(EngineMembershipTest, APipelineThatAnswersNonsenseIsGivenUp) {
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

// A stage that waited for the one before it, however long, has its own time.
TEST_F(EngineMembershipTest, AStageOwesNothingWhileTheOneBeforeItComputes) {
  options_.placement.n_stages = 2;
  options_.hang_timeout = absl::Seconds(2);
  StartEngine(2);
  AwaitPhase(Phase::kReady);
  Reader reader;
  HoldResults(true);
  Submit(Ask(&reader, "a", 4, 40));
  AwaitHeldResult();
  for (int layer = 1; layer < 6; ++layer) {
    clock_.Advance(absl::Seconds(1));
    Heartbeat("w0", layer);
  }
  {
    absl::MutexLock lock(&cluster_.mu);
    cluster_.slowest_stage = 1;
  }
  Inspect();
  Inspect();
  clock_.Advance(absl::Seconds(1.9));
  Inspect();
  EXPECT_EQ(Inspect().pipelines.size(), 1u);
  clock_.Advance(absl::Seconds(0.2));
  Await([](const auto& s) { return s.workers[1].worker.hung; });
  EXPECT_FALSE(Inspect().workers[0].worker.hung);
  engine_->Shutdown();
  EXPECT_EQ(reader.End().code(), absl::StatusCode::kUnavailable);
}

// What computes, however long, is left alone; what does nothing while a step is
// due is not.
TEST_F(EngineMembershipTest, AWorkerThatDoesNothingLosesItsStage) {
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

TEST_F(EngineMembershipTest, WhatRunsOnADrainingWorkerMovesToAnother) {
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

TEST_F(EngineMembershipTest, ADrainingWorkersNeighboursGoOnWithASpare) {
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

// Whoever else is there, or loads.
TEST_F(EngineMembershipTest, AnIdleWorkerMayLeaveAtOnce) {
  StartEngine(1);
  AwaitPhase(Phase::kReady);
  {
    absl::MutexLock lock(&cluster_.mu);
    cluster_.hold_loading = true;
  }
  ASSERT_TRUE(Register("w1", 1).ok());
  Await([](const auto& s) { return s.pipelines.size() == 2; });
  EXPECT_FALSE(Heartbeat("w0", 0, /*is_draining=*/true));
  Await([](const auto& s) { return s.pipelines.size() == 1; });
  EXPECT_TRUE(Heartbeat("w0", 0, true));
}

TEST_F(EngineMembershipTest, TheLastWorkerEndsWhatItHasBeforeItLeaves) {
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

TEST_F(EngineMembershipTest, WhatComesAfterALossWaitsForTheNextPipeline) {
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

TEST_F(EngineMembershipTest, ASilentWorkerIsLostWithItsLease) {
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

TEST_F(EngineMembershipTest, EveryFullSetOfWorkersServes) {
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

TEST_F(EngineMembershipTest, ALostPipelinesRequestsGoOnWithTheOthers) {
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

TEST_F(EngineMembershipTest,
       AWorkerThatCannotLoadDoesNotKeepOthersFromServing) {
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

TEST_F(EngineMembershipTest, WaitingForWorkersEndsWithUnavailable) {
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

TEST_F(EngineMembershipTest, PipelinesThatAnswerNothingProlongNoWait) {
  options_.unavailable_after = absl::Seconds(30);
  StartEngine(1);
  AwaitPhase(Phase::kReady);
  Reader reader;
  HoldResults(true);
  Submit(Ask(&reader, "a", 4, 40));
  AwaitHeldResult();
  ReleaseResults(/*hold_next=*/true);
  AwaitHeldResult();
  Lose(absl::InternalError("out of sorts"));
  // The worker is there each time, takes the step, and is lost again. It is
  // not tried again at once.
  for (int i = 0; i < 3; ++i) {
    AwaitHeldResult();
    Lose(absl::InternalError("out of sorts"));
    AwaitPhase(Phase::kWaiting);
    clock_.Advance(absl::Milliseconds(9900));
    Heartbeat("w0");
    AwaitPhase(Phase::kReady);
  }
  AwaitHeldResult();
  Lose(absl::InternalError("out of sorts"));
  AwaitPhase(Phase::kWaiting);
  EXPECT_EQ(Inspect().n_waiting, 1);
  clock_.Advance(absl::Milliseconds(300));
  {
    absl::MutexLock lock(&cluster_.mu);
    cluster_.hold_loading = true;
  }
  engine_->Poke();
  EXPECT_EQ(reader.End().code(), absl::StatusCode::kUnavailable);
}

TEST_F(EngineMembershipTest, ARestartedWorkerTakesItsPlaceAgain) {
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

TEST_F(EngineMembershipTest, AWorkerThatLeftMayBeRestartedAtOnce) {
  StartEngine(1);
  AwaitPhase(Phase::kReady);
  while (!Heartbeat("w0", 0, /*is_draining=*/true)) {
  }
  EXPECT_TRUE(Register("w0", 2).ok());
  AwaitPhase(Phase::kReady);
}

TEST_F(EngineMembershipTest, ACordonedWorkerServesAgainWhenItIsPutBack) {
  StartEngine(1);
  AwaitPhase(Phase::kReady);
  const auto set_cordoned = [this](const std::string& id, bool cordoned) {
    absl::Status status;
    absl::Notification done;
    engine_->SetCordoned(id, cordoned, [&](absl::Status result) {
      status = std::move(result);
      done.Notify();
    });
    done.WaitForNotification();
    return status;
  };
  EXPECT_EQ(set_cordoned("w9", true).code(), absl::StatusCode::kNotFound);
  // What nobody could take over is ended first.
  Reader reader;
  HoldResults(true);
  Submit(Ask(&reader, "a", 4, 5));
  AwaitHeldResult();
  ASSERT_TRUE(set_cordoned("w0", true).ok());
  EXPECT_EQ(Inspect().pipelines.size(), 1u);
  ReleaseResults();
  EXPECT_TRUE(reader.End().ok());
  EXPECT_EQ(reader.tokens(), Answer(4, 5));
  AwaitPhase(Phase::kWaiting);
  EXPECT_FALSE(Heartbeat("w0"));  // It is not the one that wants to go.
  ASSERT_TRUE(set_cordoned("w0", false).ok());
  AwaitPhase(Phase::kReady);
}

TEST_F(EngineMembershipTest,
       AReleasedWorkerIsForgottenWhenItsAnswersHaveMoved) {
  StartEngine(2);
  Await([](const auto& s) {
    return s.pipelines.size() == 2 && s.pipelines[0].phase == Phase::kReady &&
           s.pipelines[1].phase == Phase::kReady;
  });
  Reader reader;
  HoldResults(true);
  Submit(Ask(&reader, "a", 4, 40));
  AwaitHeldResult();
  std::string busy;
  for (const auto& pipeline : Inspect().pipelines) {
    if (pipeline.n_running > 0) busy = pipeline.stages[0].placed.worker_id;
  }
  engine_->ReleaseWorker(busy);
  Await([](const auto& s) { return s.workers.size() == 1; });
  ReleaseResults();
  EXPECT_TRUE(reader.End().ok());
  EXPECT_EQ(reader.tokens(), Answer(4, 40));
  // It may come back, as any other.
  EXPECT_TRUE(Register(busy, 1).ok());
  Await([](const auto& s) { return s.pipelines.size() == 2; });
}

TEST_F(EngineMembershipTest, LoadingIsTriedAgainWithPauses) {
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

// The only worker dies with 20 tokens answered; those of another class come.
TEST_F(EngineMembershipTest, AnotherClassIsLetInWhileRequestsWaitIfItMayBe) {
  for (const bool may_change : {false, true}) {
    SCOPED_TRACE(may_change);
    options_.allow_numerics_change = may_change;
    numerics_class_ = "cpu-1";
    StartEngine(1);
    AwaitPhase(Phase::kReady);
    Reader reader;
    HoldResults(true);
    Submit(Ask(&reader, "a", 4, 60));
    for (int i = 0; i < 20; ++i) {
      AwaitHeldResult();
      ReleaseResults(/*hold_next=*/true);
    }
    AwaitHeldResult();
    Lose(absl::UnavailableError("gone"));
    HoldResults(false);
    numerics_class_ = "sm90-1";
    // As long as one of the old class may come back it is waited for.
    EXPECT_EQ(Register("w1", 1).code(), absl::StatusCode::kFailedPrecondition);
    clock_.Advance(options_.cluster.lease_duration);
    Await([](const auto& s) { return s.workers[0].worker.lost; });
    EXPECT_EQ(Register("w1", 1).ok(), may_change);
    if (may_change) {
      EXPECT_TRUE(reader.End().ok());
      EXPECT_EQ(reader.tokens(), Answer(4, 60));
      EXPECT_EQ(reader.numerics_changes(),
                (std::vector<std::string>{"20 sm90-1/int8"}));
    }
    engine_.reset();
  }
}

}  // namespace
}  // namespace tern
