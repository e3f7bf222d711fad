// The network between real processes loses, delays, repeats and damages
// messages; every stream ends with the tokens of an undisturbed one.

#include <signal.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "grpcpp/client_context.h"
#include "gtest/gtest.h"
#include "proto/tern/v1/cluster.pb.h"
#include "proto/tern/v1/inference.pb.h"
#include "tests/integration/local_cluster.h"
#include "tests/testing/fault_proxy.h"

namespace tern {
namespace {

using Kind = FaultProxy::Kind;
using MessageFault = FaultProxy::MessageFault;
using Way = FaultProxy::Way;

constexpr absl::Duration kPatience = absl::Seconds(60);

void SetDeadline(grpc::ClientContext* context) {
  context->set_deadline(absl::ToChronoTime(absl::Now() + kPatience));
}

v1::StreamGenerateRequest Request(int max_tokens) {
  v1::StreamGenerateRequest request;
  request.mutable_request()->set_text("JULIET:\nO Romeo, Romeo!\n\nROMEO:\n");
  request.mutable_request()->mutable_sampling()->set_temperature(0.8f);
  request.mutable_request()->mutable_sampling()->set_seed(7);
  request.mutable_request()->mutable_sampling()->set_frequency_penalty(0.2f);
  request.mutable_request()->mutable_response_options()->set_return_token_ids(
      true);
  request.mutable_request()->mutable_stopping()->set_max_output_tokens(
      max_tokens);
  return request;
}

class NetworkTest : public ::testing::Test {
 protected:
  void Start(int stages, int workers,
             std::vector<std::string> coordinator_flags = {}) {
    LocalCluster::Options options;
    options.stages = stages;
    options.workers = workers;
    options.proxies = true;
    options.coordinator_flags = std::move(coordinator_flags);
    auto started = LocalCluster::Start(options);
    ASSERT_TRUE(started.ok()) << started.status();
    cluster_ = *std::move(started);
    Read(300, &undisturbed_, -1, [] {});
    ASSERT_GT(undisturbed_.size(), 100);
  }

  // After `after` messages calls `then`, once.
  void Read(int max_tokens, std::vector<int32_t>* tokens, int after,
            const std::function<void()>& then) {
    grpc::ClientContext context;
    SetDeadline(&context);
    auto reader =
        cluster_->inference().StreamGenerate(&context, Request(max_tokens));
    v1::StreamGenerateResponse response;
    absl::Time last = absl::Now();
    longest_pause_ = absl::ZeroDuration();
    for (int i = 0; reader->Read(&response); ++i) {
      for (const int32_t id : response.delta().token_ids()) {
        tokens->push_back(id);
      }
      longest_pause_ = std::max(longest_pause_, absl::Now() - last);
      last = absl::Now();
      if (i == after) then();
    }
    const grpc::Status status = reader->Finish();
    EXPECT_TRUE(status.ok()) << status.error_message() << cluster_->Logs();
  }

  // A stream that `disturb` disturbs has the tokens it should have.
  void ExpectUndisturbed(const std::function<void()>& disturb) {
    std::vector<int32_t> tokens;
    Read(300, &tokens, 8, disturb);
    EXPECT_EQ(tokens, undisturbed_) << cluster_->Logs();
  }

  v1::ListWorkersResponse Workers() {
    grpc::ClientContext context;
    SetDeadline(&context);
    v1::ListWorkersResponse response;
    EXPECT_TRUE(cluster_->cluster().ListWorkers(&context, {}, &response).ok());
    return response;
  }
  // Number of the worker that holds the stage; -1 when none does.
  int HolderOf(int stage) {
    const v1::ListWorkersResponse workers = Workers();
    for (int i = 0; i < workers.workers_size(); ++i) {
      const v1::Worker& worker = workers.workers(i);
      if (!worker.pipeline_id().empty() && worker.stage_index() == stage) {
        return i;
      }
    }
    return -1;
  }
  // Waits until every worker may have, or has, a stage.
  void AwaitAllUsable() {
    const absl::Time deadline = absl::Now() + kPatience;
    while (true) {
      const v1::ListWorkersResponse workers = Workers();
      int n_usable = 0;
      for (const v1::Worker& worker : workers.workers()) {
        n_usable += worker.state() == v1::WORKER_STATE_IDLE ||
                    worker.state() == v1::WORKER_STATE_READY;
      }
      if (n_usable == workers.workers_size()) return;
      ASSERT_LT(absl::Now(), deadline)
          << workers.DebugString() << cluster_->Logs();
    }
  }
  int CountInLog(const std::string& text) {
    const std::string log = cluster_->coordinator().Log();
    int n = 0;
    for (size_t at = log.find(text); at != std::string::npos;
         at = log.find(text, at + 1)) {
      ++n;
    }
    return n;
  }
  int n_lost() { return CountInLog("event=pipeline_lost"); }

  std::unique_ptr<LocalCluster> cluster_;
  std::vector<int32_t> undisturbed_;
  absl::Duration longest_pause_;
};

// Both ways, or one: the stream goes on elsewhere, and what the worker still
// sends for the old epoch when it can be reached again changes nothing.
TEST_F(NetworkTest, AWorkerCutOffFromAllIsReplacedAndComesBack) {
  Start(2, 3);
  const std::vector<std::function<void(FaultProxy*)>> cuts = {
      [](FaultProxy* proxy) { proxy->Cut(); },
      [](FaultProxy* proxy) { proxy->Cut(Way::kThere); },
      [](FaultProxy* proxy) { proxy->Cut(Way::kBack); }};
  for (size_t i = 0; i < cuts.size(); ++i) {
    const int victim = HolderOf(static_cast<int>(i) % 2);
    ASSERT_GE(victim, 0);
    const int n_lost_before = n_lost();
    ExpectUndisturbed([&] { cuts[i](&cluster_->proxy(victim)); });
    EXPECT_GT(n_lost(), n_lost_before) << "cut " << i;
    cluster_->proxy(victim).Heal();
    AwaitAllUsable();
    ExpectUndisturbed([] {});
  }
}

// With nobody else to turn to, the stream waits for the network.
TEST_F(NetworkTest, AStreamGoesOnAfterHealingWhenNobodyElseIsThere) {
  Start(2, 2);
  for (const int stage : {0, 1}) {
    const int victim = HolderOf(stage);
    ASSERT_GE(victim, 0);
    const int n_lost_before = n_lost();
    std::thread healer;
    ExpectUndisturbed([&] {
      cluster_->proxy(victim).Cut();
      healer = std::thread([&] {
        const absl::Time deadline = absl::Now() + kPatience;
        while (n_lost() == n_lost_before && absl::Now() < deadline) {
        }
        cluster_->proxy(victim).Heal();
      });
    });
    healer.join();
    EXPECT_GT(n_lost(), n_lost_before);
    AwaitAllUsable();
  }
}

// The coordinator reaches both, they do not reach each other.
TEST_F(NetworkTest, TwoStagesCutOffFromEachOtherAreFound) {
  Start(2, 3);
  const std::vector<std::pair<int, std::string>> links = {
      {1, "TransferHiddenStates"}, {0, "TransferSampledTokens"}};
  for (const auto& [stage, method] : links) {
    const int victim = HolderOf(stage);
    ASSERT_GE(victim, 0);
    const int n_lost_before = n_lost();
    ExpectUndisturbed([&, method = method] {
      cluster_->proxy(victim).CutOnly(method);
      cluster_->proxy(victim).Cut();
    });
    EXPECT_GT(n_lost(), n_lost_before) << method << cluster_->Logs();
    cluster_->proxy(victim).Heal();
    AwaitAllUsable();
  }
}

// Heartbeats alone are lost: the worker serves on until its lease ends, and
// registers again when it can.
TEST_F(NetworkTest, WorkersThatCannotReachTheCoordinatorLoseTheirLease) {
  Start(2, 2, {"--lease=1s"});
  std::thread healer;
  ExpectUndisturbed([&] {
    cluster_->coordinator_proxy().Cut(Way::kThere);
    healer = std::thread([&] {
      const absl::Time deadline = absl::Now() + kPatience;
      while (CountInLog("event=worker_lost") == 0 && absl::Now() < deadline) {
      }
      cluster_->coordinator_proxy().Heal();
    });
  });
  healer.join();
  // A demo stream may be over before the lease is.
  ASSERT_TRUE(cluster_->WaitUntilReady().ok()) << cluster_->Logs();
  AwaitAllUsable();
  ExpectUndisturbed([] {});
}

// A delay is no loss, on any link.
TEST_F(NetworkTest, DelaysSlowDownAndLoseNobody) {
  Start(2, 2);
  for (const absl::Duration delay :
       {absl::Milliseconds(20), absl::Milliseconds(300)}) {
    // 300 tokens one after the other would take minutes.
    const int n_tokens = delay < absl::Milliseconds(100) ? 100 : 12;
    std::vector<int32_t> tokens;
    Read(n_tokens, &tokens, 0, [&] {
      for (const int i : {0, 1}) cluster_->proxy(i).Delay(delay);
      cluster_->coordinator_proxy().Delay(delay);
    });
    const std::vector<int32_t> expected(undisturbed_.begin(),
                                        undisturbed_.begin() + n_tokens);
    EXPECT_EQ(tokens, expected);
    EXPECT_GE(longest_pause_, delay);
    EXPECT_EQ(n_lost(), 0) << cluster_->Logs();
    EXPECT_EQ(CountInLog("event=worker_lost"), 0) << cluster_->Logs();
  }
}

struct Case {
  Kind kind;
  std::string method;
  Way way;
  int stage;  // in front of whose worker; -1 for the coordinator
  // What the coordinator's log says; empty when nothing is lost.
  std::string reason;
  // Whether it may do no harm as well: in a field that nobody reads again.
  bool or_nothing = false;
};

std::string NameOf(const Case& c) {
  return absl::StrCat(static_cast<int>(c.kind), " ", c.method, " ",
                      static_cast<int>(c.way), " stage ", c.stage);
}

class MessageFaults : public NetworkTest {
 protected:
  // Each during a stream of its own; every one happens, and is found.
  void Check(const std::vector<Case>& cases, uint64_t bit = 0) {
    for (const Case& c : cases) {
      SCOPED_TRACE(NameOf(c));
      ASSERT_TRUE(cluster_->WaitUntilReady().ok()) << cluster_->Logs();
      AwaitAllUsable();
      const int holder = c.stage < 0 ? -1 : HolderOf(c.stage);
      ASSERT_TRUE(c.stage < 0 || holder >= 0);
      FaultProxy& proxy =
          c.stage < 0 ? cluster_->coordinator_proxy() : cluster_->proxy(holder);
      const int64_t n_before = proxy.n_happened();
      const int n_lost_before = n_lost();
      const int n_reasons_before = CountInLog(c.reason);
      ExpectUndisturbed([&] {
        MessageFault fault;
        fault.kind = c.kind;
        fault.method = c.method;
        fault.way = c.way;
        fault.bit = bit;
        proxy.Add(fault);
      });
      EXPECT_TRUE(proxy.AwaitHappened(n_before + 1, kPatience));
      if (c.reason.empty()) {
        EXPECT_EQ(n_lost(), n_lost_before) << cluster_->Logs();
      } else if (!c.or_nothing || n_lost() > n_lost_before) {
        EXPECT_GT(n_lost(), n_lost_before) << cluster_->Logs();
        EXPECT_GT(CountInLog(c.reason), n_reasons_before) << cluster_->Logs();
      }
      if (HasFailure()) return;
    }
  }
};

TEST_F(MessageFaults, RepeatedMessagesAreFoundOrHarmless) {
  Start(2, 2);
  Check({
      {Kind::kDuplicate, "ExecuteSteps", Way::kThere, 0, "follows step"},
      {Kind::kDuplicate, "ExecuteSteps", Way::kThere, 1, "follows step"},
      {Kind::kDuplicate, "ExecuteSteps", Way::kBack, 0, "the worker answered"},
      {Kind::kDuplicate, "ExecuteSteps", Way::kBack, 1, "the worker answered"},
      {Kind::kDuplicate, "TransferHiddenStates", Way::kThere, 1, "come after"},
      {Kind::kDuplicate, "TransferSampledTokens", Way::kThere, 0, "come after"},
      {Kind::kRepeatCall, "SendHeartbeat", Way::kThere, -1, ""},
  });
}

TEST_F(MessageFaults, SwallowedMessagesAreFound) {
  Start(2, 2);
  Check({
      {Kind::kSwallow, "ExecuteSteps", Way::kThere, 0, "event=pipeline_lost"},
      {Kind::kSwallow, "ExecuteSteps", Way::kThere, 1, "event=pipeline_lost"},
      {Kind::kSwallow, "ExecuteSteps", Way::kBack, 0, "event=pipeline_lost"},
      {Kind::kSwallow, "ExecuteSteps", Way::kBack, 1, "event=pipeline_lost"},
      {Kind::kSwallow, "TransferHiddenStates", Way::kThere, 1,
       "event=pipeline_lost"},
      {Kind::kSwallow, "TransferSampledTokens", Way::kThere, 0,
       "event=pipeline_lost"},
      {Kind::kSwallow, "SendHeartbeat", Way::kThere, -1, ""},
  });
}

TEST_F(MessageFaults, BrokenStreamsAreReplayed) {
  Start(2, 2);
  Check({
      {Kind::kBreakStream, "ExecuteSteps", Way::kThere, 0, "connection broke"},
      {Kind::kBreakStream, "ExecuteSteps", Way::kBack, 1, "connection broke"},
      {Kind::kBreakStream, "TransferHiddenStates", Way::kThere, 1,
       "event=pipeline_lost"},
      {Kind::kBreakStream, "TransferSampledTokens", Way::kThere, 0,
       "event=pipeline_lost"},
      {Kind::kBreakStream, "SendHeartbeat", Way::kThere, -1, ""},
  });
}

// Any bit of any message: never other tokens.
TEST_F(MessageFaults, DamagedMessagesNeverChangeTokens) {
  Start(2, 2);
  // At the beginning (names), in the middle (rows and values), and close to the
  // end (the checksum itself): the last are modulo the size.
  for (const uint64_t bit : {uint64_t{19}, uint64_t{8 * 45 + 2},
                             uint64_t{8 * 61 + 1}, uint64_t{8 * 83}}) {
    SCOPED_TRACE(absl::StrCat("bit ", bit));
    const std::string lost = "event=pipeline_lost";
    Check(
        {
            {Kind::kCorrupt, "ExecuteSteps", Way::kThere, 0, lost},
            {Kind::kCorrupt, "ExecuteSteps", Way::kThere, 1, lost},
            {Kind::kCorrupt, "ExecuteSteps", Way::kBack, 0, lost},
            {Kind::kCorrupt, "ExecuteSteps", Way::kBack, 1, lost},
            {Kind::kCorrupt, "TransferHiddenStates", Way::kThere, 1, lost,
             /*or_nothing=*/true},
            {Kind::kCorrupt, "TransferSampledTokens", Way::kThere, 0, lost},
            {Kind::kCorrupt, "SendHeartbeat", Way::kThere, -1, ""},
        },
        bit);
    if (HasFailure()) return;
  }
}

// All along the messages with the most in them: the plan that opens a sequence
// and runs its prompt, and the result with the last prompt token's successor.
TEST_F(MessageFaults, NoPlaceInAPlanOrResultIsUnprotected) {
  Start(2, 2);
  int n_unnoticed = 0;
  for (const Way way : {Way::kThere, Way::kBack}) {
    const uint64_t n_bytes = way == Way::kThere ? 160 : 80;
    for (uint64_t byte = 50; byte < n_bytes; byte += 3) {
      const int holder = HolderOf(1);
      ASSERT_GE(holder, 0);
      const int n_lost_before = n_lost();
      cluster_->proxy(holder).Add(
          {Kind::kCorrupt, "ExecuteSteps", way, 8 * byte + byte % 3});
      std::vector<int32_t> tokens;
      Read(20, &tokens, -1, [] {});
      const std::vector<int32_t> expected(undisturbed_.begin(),
                                          undisturbed_.begin() + 20);
      ASSERT_EQ(tokens, expected) << "byte " << byte << cluster_->Logs();
      n_unnoticed += n_lost() == n_lost_before;
    }
  }
  // A checksum whose field number was hit is missing; the rest is intact.
  EXPECT_LE(n_unnoticed, 2) << cluster_->Logs();
}

// While a stage is loaded and a worker makes itself known again: the load, or
// the call, is made anew.
TEST_F(MessageFaults, DamagedIntroductionsAndLoadsAreRefused) {
  Start(2, 2);
  for (const uint64_t bit :
       {uint64_t{8 * 20}, uint64_t{8 * 40 + 1}, uint64_t{8 * 52 + 3}}) {
    SCOPED_TRACE(absl::StrCat("bit ", bit));
    for (const int i : {0, 1}) {
      cluster_->proxy(i).Add({Kind::kCorrupt, "LoadStage", Way::kThere, bit});
    }
    cluster_->coordinator_proxy().Add(
        {Kind::kCorrupt, "RegisterWorker", Way::kThere, bit});
    const int64_t n_before = cluster_->coordinator_proxy().n_happened();
    ExpectUndisturbed([&] {
      cluster_->worker(0).Signal(SIGKILL);
      EXPECT_TRUE(cluster_->worker(0).Wait(kPatience).ok());
      EXPECT_TRUE(cluster_->StartWorker(0).ok());
    });
    EXPECT_EQ(cluster_->coordinator_proxy().n_happened(), n_before + 1);
  }
  for (const int i : {0, 1}) EXPECT_EQ(cluster_->proxy(i).n_happened(), 3);
}

}  // namespace
}  // namespace tern
