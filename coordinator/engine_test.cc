// Requests: admission, answers, ends.

#include "coordinator/engine.h"

#include <deque>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "coordinator/engine_fixture.h"
#include "gtest/gtest.h"

namespace tern {
namespace {

class EngineTest : public EngineFixture {};

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
