// Real processes are killed, are missing, or are not who they should be; the
// client sees the right text or a clear status, never wrong text.

#include <signal.h>

#include <cstdint>
#include <fstream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "grpcpp/client_context.h"
#include "gtest/gtest.h"
#include "proto/tern/v1/cluster.pb.h"
#include "proto/tern/v1/inference.pb.h"
#include "tests/integration/local_cluster.h"
#include "tests/testing/fault_proxy.h"
#include "util/credentials.h"

namespace tern {
namespace {

v1::StreamGenerateRequest Request(const std::string& text, int max_tokens) {
  v1::StreamGenerateRequest request;
  request.mutable_request()->set_text(text);
  request.mutable_request()->mutable_sampling()->set_temperature(0.8f);
  request.mutable_request()->mutable_sampling()->set_seed(7);
  request.mutable_request()->mutable_stopping()->set_max_output_tokens(
      max_tokens);
  return request;
}

void SetDeadline(grpc::ClientContext* context,
                 absl::Duration timeout = absl::Seconds(60)) {
  context->set_deadline(absl::ToChronoTime(absl::Now() + timeout));
}

// Reads a stream to its end. After `after` messages calls `then`, once.
template <typename Then>
grpc::Status ReadAll(LocalCluster& cluster,
                     const v1::StreamGenerateRequest& request,
                     std::string* text, int after, Then then) {
  grpc::ClientContext context;
  SetDeadline(&context);
  auto reader = cluster.inference().StreamGenerate(&context, request);
  v1::StreamGenerateResponse response;
  for (int i = 0; reader->Read(&response); ++i) {
    *text += response.delta().text();
    if (i == after) then();
  }
  return reader->Finish();
}

grpc::Status ReadAll(LocalCluster& cluster,
                     const v1::StreamGenerateRequest& request,
                     std::string* text) {
  return ReadAll(cluster, request, text, -1, [] {});
}

v1::ListWorkersResponse Workers(LocalCluster& cluster) {
  grpc::ClientContext context;
  SetDeadline(&context);
  v1::ListWorkersResponse response;
  EXPECT_TRUE(cluster.cluster().ListWorkers(&context, {}, &response).ok());
  return response;
}

// Number of the worker that holds the stage; -1 when none does.
int HolderOf(LocalCluster& cluster, int stage) {
  const v1::ListWorkersResponse workers = Workers(cluster);
  for (int i = 0; i < workers.workers_size(); ++i) {
    const v1::Worker& worker = workers.workers(i);
    if (!worker.pipeline_id().empty() && worker.stage_index() == stage) {
      return i;
    }
  }
  return -1;
}

TEST(WorkerLoss, StreamGoesOnWithTheSameTokensWhenTheWorkerComesBack) {
  LocalCluster::Options options;
  options.stages = 2;
  auto started = LocalCluster::Start(options);
  ASSERT_TRUE(started.ok()) << started.status();
  LocalCluster& cluster = **started;
  const v1::StreamGenerateRequest request = Request("ROMEO:\n", 300);
  std::string undisturbed;
  ASSERT_TRUE(ReadAll(cluster, request, &undisturbed).ok());

  for (int victim : {0, 1}) {
    // Company that is lost and replayed with it.
    std::string beside;
    grpc::Status beside_status;
    absl::Notification is_beside;
    std::thread company([&] {
      beside_status = ReadAll(cluster, request, &beside, 1,
                              [&is_beside] { is_beside.Notify(); });
    });
    std::string text;
    const grpc::Status status =
        ReadAll(cluster, request, &text, 8, [&cluster, &is_beside, victim] {
          is_beside.WaitForNotification();
          cluster.worker(victim).Signal(SIGKILL);
          EXPECT_TRUE(cluster.worker(victim).Wait(absl::Seconds(10)).ok());
          EXPECT_TRUE(cluster.StartWorker(victim).ok());
        });
    company.join();
    EXPECT_TRUE(status.ok()) << status.error_message() << cluster.Logs();
    EXPECT_EQ(text, undisturbed) << "worker " << victim << " killed";
    EXPECT_TRUE(beside_status.ok()) << beside_status.error_message();
    EXPECT_EQ(beside, undisturbed);
  }
}

// Of three stages each in turn, with enough streams to have all of them busy:
// the chain of hidden states breaks, or the ring of tokens.
TEST(WorkerLoss, AnyOfThreeStagesMayGoAndTheTokensAreThoseOfOneStage) {
  std::vector<v1::StreamGenerateRequest> requests;
  for (const char* text :
       {"ROMEO:\n", "JULIET:\n", "First Citizen:\n", "All"}) {
    requests.push_back(Request(text, 150));
  }
  std::vector<std::string> expected(requests.size());
  {
    auto alone = LocalCluster::Start({});
    ASSERT_TRUE(alone.ok()) << alone.status();
    for (size_t i = 0; i < requests.size(); ++i) {
      ASSERT_TRUE(ReadAll(**alone, requests[i], &expected[i]).ok());
    }
  }
  LocalCluster::Options options;
  options.stages = 3;
  auto started = LocalCluster::Start(options);
  ASSERT_TRUE(started.ok()) << started.status();
  LocalCluster& cluster = **started;
  for (int victim = 0; victim < 3; ++victim) {
    std::vector<std::string> texts(requests.size());
    std::vector<grpc::Status> statuses(requests.size());
    std::vector<std::thread> company;
    for (size_t i = 1; i < requests.size(); ++i) {
      company.emplace_back(
          [&, i] { statuses[i] = ReadAll(cluster, requests[i], &texts[i]); });
    }
    statuses[0] = ReadAll(cluster, requests[0], &texts[0], 8, [&] {
      cluster.worker(victim).Signal(SIGKILL);
      EXPECT_TRUE(cluster.worker(victim).Wait(absl::Seconds(10)).ok());
      EXPECT_TRUE(cluster.StartWorker(victim).ok());
    });
    for (std::thread& thread : company) thread.join();
    for (size_t i = 0; i < requests.size(); ++i) {
      EXPECT_TRUE(statuses[i].ok())
          << statuses[i].error_message() << cluster.Logs();
      EXPECT_EQ(texts[i], expected[i]) << "worker " << victim << " killed";
    }
  }
}

TEST(WorkerLoss, SpareWorkerTakesThePlace) {
  LocalCluster::Options options;
  options.stages = 2;
  options.workers = 3;
  auto started = LocalCluster::Start(options);
  ASSERT_TRUE(started.ok()) << started.status();
  LocalCluster& cluster = **started;
  const v1::StreamGenerateRequest request = Request("JULIET:\n", 300);
  std::string undisturbed;
  ASSERT_TRUE(ReadAll(cluster, request, &undisturbed).ok());

  const int victim = HolderOf(cluster, 0);
  ASSERT_GE(victim, 0);
  std::string text;
  const grpc::Status status =
      ReadAll(cluster, request, &text, 8,
              [&cluster, victim] { cluster.worker(victim).Signal(SIGKILL); });
  EXPECT_TRUE(status.ok()) << status.error_message() << cluster.Logs();
  EXPECT_EQ(text, undisturbed);
}

void KillAndWait(LocalCluster& cluster, int worker) {
  cluster.worker(worker).Signal(SIGKILL);
  EXPECT_TRUE(cluster.worker(worker).Wait(absl::Seconds(10)).ok());
}

// While prompts are computed, in many steps, before the first token.
TEST(WorkerLoss, DuringTheStepsOfALongPrompt) {
  LocalCluster::Options options;
  options.stages = 2;
  options.workers = 3;
  options.proxies = true;
  options.coordinator_flags = {"--max_step_tokens=8", "--prefix_cache=false"};
  auto started = LocalCluster::Start(options);
  ASSERT_TRUE(started.ok()) << started.status();
  LocalCluster& cluster = **started;
  std::string prompt;
  while (prompt.size() < 600) prompt += "KING RICHARD III:\nNow is the winter ";
  const v1::StreamGenerateRequest request = Request(prompt, 20);
  std::string undisturbed;
  ASSERT_TRUE(ReadAll(cluster, request, &undisturbed).ok());
  for (const int stage : {0, 1}) {
    const int victim = HolderOf(cluster, stage);
    ASSERT_GE(victim, 0);
    FaultProxy& proxy = cluster.proxy(victim);
    const auto n_plans = [&proxy] {
      return proxy.n_messages("ExecuteSteps", FaultProxy::Way::kThere);
    };
    const int64_t n_before = n_plans();
    // Slow enough that the prompt is not over before its worker is.
    proxy.Delay(absl::Milliseconds(10));
    std::string text;
    grpc::Status status;
    std::thread stream([&] { status = ReadAll(cluster, request, &text); });
    const absl::Time deadline = absl::Now() + absl::Seconds(30);
    while (n_plans() < n_before + 4 && absl::Now() < deadline) {
    }
    KillAndWait(cluster, victim);
    EXPECT_LT(n_plans(), n_before + 20) << "the prompt may have been over";
    stream.join();
    proxy.Delay(absl::ZeroDuration());
    EXPECT_TRUE(status.ok()) << status.error_message() << cluster.Logs();
    EXPECT_EQ(text, undisturbed) << "stage " << stage;
    ASSERT_TRUE(cluster.StartWorker(victim).ok());
    ASSERT_TRUE(cluster.WaitUntilReady().ok()) << cluster.Logs();
  }
}

// The spare that takes a lost worker's place is lost while it loads.
TEST(WorkerLoss, DuringTheLoadOfAnotherRecovery) {
  LocalCluster::Options options;
  options.stages = 2;
  options.workers = 3;
  options.proxies = true;
  auto started = LocalCluster::Start(options);
  ASSERT_TRUE(started.ok()) << started.status();
  LocalCluster& cluster = **started;
  const v1::StreamGenerateRequest request = Request("JULIET:\n", 300);
  std::string undisturbed;
  ASSERT_TRUE(ReadAll(cluster, request, &undisturbed).ok());
  const int first = HolderOf(cluster, 0);
  const int second = HolderOf(cluster, 1);
  ASSERT_TRUE(first >= 0 && second >= 0);
  const int spare = 3 - first - second;
  FaultProxy& proxy = cluster.proxy(spare);
  // What it says of its loading does not arrive.
  proxy.CutOnly("LoadStage");
  proxy.Cut(FaultProxy::Way::kBack);
  const auto n_said = [&proxy] {
    return proxy.n_messages("LoadStage", FaultProxy::Way::kBack);
  };
  const int64_t n_said_before = n_said();
  std::string text;
  const grpc::Status status = ReadAll(cluster, request, &text, 8, [&] {
    KillAndWait(cluster, first);
    const absl::Time deadline = absl::Now() + absl::Seconds(30);
    while (n_said() == n_said_before && absl::Now() < deadline) {
    }
    EXPECT_GT(n_said(), n_said_before) << cluster.Logs();
    KillAndWait(cluster, spare);
    proxy.Heal();
    EXPECT_TRUE(cluster.StartWorker(spare).ok());
  });
  EXPECT_TRUE(status.ok()) << status.error_message() << cluster.Logs();
  EXPECT_EQ(text, undisturbed);
}

// Of two pipelines of two stages: both workers of one, or one of each.
TEST(WorkerLoss, TwoAtOnce) {
  LocalCluster::Options options;
  options.stages = 2;
  options.workers = 4;
  auto started = LocalCluster::Start(options);
  ASSERT_TRUE(started.ok()) << started.status();
  LocalCluster& cluster = **started;
  const v1::StreamGenerateRequest request = Request("JULIET:\n", 300);
  std::string undisturbed;
  ASSERT_TRUE(ReadAll(cluster, request, &undisturbed).ok());
  for (const bool of_one_pipeline : {true, false}) {
    const absl::Time deadline = absl::Now() + absl::Seconds(60);
    const auto n_ready = [&cluster] {
      int n = 0;
      const v1::ListWorkersResponse now = Workers(cluster);
      for (const v1::Worker& worker : now.workers()) {
        n += worker.state() == v1::WORKER_STATE_READY;
      }
      return n;
    };
    while (n_ready() < 4) ASSERT_LT(absl::Now(), deadline) << cluster.Logs();
    const v1::ListWorkersResponse workers = Workers(cluster);
    std::vector<int> victims = {0};
    for (int i = 1; i < 4 && victims.size() < 2; ++i) {
      const bool same =
          workers.workers(i).pipeline_id() == workers.workers(0).pipeline_id();
      if (same == of_one_pipeline) victims.push_back(i);
    }
    ASSERT_EQ(victims.size(), 2);
    constexpr int kStreams = 6;
    std::vector<std::string> texts(kStreams);
    std::vector<grpc::Status> statuses(kStreams);
    std::vector<std::thread> company;
    for (int i = 1; i < kStreams; ++i) {
      company.emplace_back(
          [&, i] { statuses[i] = ReadAll(cluster, request, &texts[i]); });
    }
    statuses[0] = ReadAll(cluster, request, &texts[0], 8, [&] {
      for (const int victim : victims) cluster.worker(victim).Signal(SIGKILL);
      for (const int victim : victims) {
        KillAndWait(cluster, victim);
        EXPECT_TRUE(cluster.StartWorker(victim).ok());
      }
    });
    for (std::thread& thread : company) thread.join();
    for (int i = 0; i < kStreams; ++i) {
      EXPECT_TRUE(statuses[i].ok())
          << statuses[i].error_message() << cluster.Logs();
      EXPECT_EQ(texts[i], undisturbed) << "stream " << i;
    }
  }
}

// A process that is there and does nothing: its connections stay.
TEST(WorkerLoss, AHungWorkerIsReplacedAndComesBack) {
  LocalCluster::Options options;
  options.stages = 2;
  options.workers = 3;
  auto started = LocalCluster::Start(options);
  ASSERT_TRUE(started.ok()) << started.status();
  LocalCluster& cluster = **started;
  const v1::StreamGenerateRequest request = Request("JULIET:\n", 300);
  std::string undisturbed;
  ASSERT_TRUE(ReadAll(cluster, request, &undisturbed).ok());
  for (const int stage : {0, 1}) {
    const int victim = HolderOf(cluster, stage);
    ASSERT_GE(victim, 0);
    std::string text;
    const grpc::Status status =
        ReadAll(cluster, request, &text, 8,
                [&cluster, victim] { cluster.worker(victim).Signal(SIGSTOP); });
    EXPECT_TRUE(status.ok()) << status.error_message() << cluster.Logs();
    EXPECT_EQ(text, undisturbed);
    // Lost once its lease has run out, too.
    const v1::WorkerState state = Workers(cluster).workers(victim).state();
    EXPECT_TRUE(state == v1::WORKER_STATE_HUNG ||
                state == v1::WORKER_STATE_LOST)
        << v1::WorkerState_Name(state);
    cluster.worker(victim).Signal(SIGCONT);
    const absl::Time deadline = absl::Now() + absl::Seconds(60);
    while (Workers(cluster).workers(victim).state() != v1::WORKER_STATE_IDLE) {
      ASSERT_LT(absl::Now(), deadline) << cluster.Logs();
    }
  }
}

// SIGTERM: what runs on the worker moves to a spare, and its process ends soon
// after, long before the answers would have.
TEST(Drain, AnswersMoveAndTheWorkerLeaves) {
  LocalCluster::Options options;
  options.stages = 2;
  options.workers = 3;
  auto started = LocalCluster::Start(options);
  ASSERT_TRUE(started.ok()) << started.status();
  LocalCluster& cluster = **started;
  const v1::StreamGenerateRequest request = Request("JULIET:\n", 300);
  std::string undisturbed;
  ASSERT_TRUE(ReadAll(cluster, request, &undisturbed).ok());
  constexpr int kStreams = 8;
  std::vector<std::string> texts(kStreams);
  std::vector<grpc::Status> statuses(kStreams);
  std::vector<std::thread> streams;
  for (int i = 0; i < kStreams; ++i) {
    streams.emplace_back([&, i] {
      statuses[i] = ReadAll(cluster, request, &texts[i], 8, [&cluster, i] {
        if (i == 0) cluster.worker(0).Signal(SIGTERM);
      });
    });
  }
  for (std::thread& stream : streams) stream.join();
  const absl::StatusOr<int> exit_code =
      cluster.worker(0).Wait(absl::Seconds(60));
  ASSERT_TRUE(exit_code.ok()) << exit_code.status() << cluster.Logs();
  EXPECT_EQ(*exit_code, 0);
  EXPECT_THAT(cluster.worker(0).Log(),
              ::testing::HasSubstr("event=drained released=1"));
  for (int i = 0; i < kStreams; ++i) {
    EXPECT_TRUE(statuses[i].ok()) << statuses[i].error_message();
    EXPECT_EQ(texts[i], undisturbed) << "stream " << i;
  }
}

// With nobody to take over, what it has ends first.
TEST(Drain, TheLastWorkerEndsItsAnswers) {
  auto started = LocalCluster::Start({});
  ASSERT_TRUE(started.ok()) << started.status();
  LocalCluster& cluster = **started;
  const v1::StreamGenerateRequest request = Request("JULIET:\n", 300);
  std::string undisturbed;
  ASSERT_TRUE(ReadAll(cluster, request, &undisturbed).ok());
  std::string text;
  const grpc::Status status = ReadAll(cluster, request, &text, 8, [&cluster] {
    cluster.worker(0).Signal(SIGTERM);
  });
  EXPECT_TRUE(status.ok()) << status.error_message() << cluster.Logs();
  EXPECT_EQ(text, undisturbed);
  const absl::StatusOr<int> exit_code =
      cluster.worker(0).Wait(absl::Seconds(60));
  ASSERT_TRUE(exit_code.ok()) << exit_code.status() << cluster.Logs();
  EXPECT_EQ(*exit_code, 0);
  EXPECT_EQ(cluster.coordinator().Log().find("sequences=1"), std::string::npos)
      << cluster.Logs();
}

TEST(WorkerLoss, WaitsForAStatedTimeAndThenSaysUnavailable) {
  LocalCluster::Options options;
  options.stages = 2;
  options.coordinator_flags = {"--unavailable_after=300ms"};
  auto started = LocalCluster::Start(options);
  ASSERT_TRUE(started.ok()) << started.status();
  LocalCluster& cluster = **started;
  std::string text;
  const grpc::Status status =
      ReadAll(cluster, Request("ROMEO:\n", 480), &text, 8,
              [&cluster] { cluster.worker(1).Signal(SIGKILL); });
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE)
      << status.error_message();
  ASSERT_TRUE(cluster.WaitUntilReady(false).ok());

  // A new request hears so at once, and what is missing.
  const grpc::Status refused = ReadAll(cluster, Request("A", 1), &text);
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_NE(refused.error_message().find("2"), std::string::npos)
      << refused.error_message();

  // With the worker everything comes back.
  ASSERT_TRUE(cluster.StartWorker(1).ok());
  ASSERT_TRUE(cluster.WaitUntilReady().ok()) << cluster.Logs();
  EXPECT_TRUE(ReadAll(cluster, Request("A", 1), &text).ok());
}

TEST(Membership, WorkersServeACoordinatorThatStartsAgain) {
  LocalCluster::Options options;
  options.stages = 2;
  auto started = LocalCluster::Start(options);
  ASSERT_TRUE(started.ok()) << started.status();
  LocalCluster& cluster = **started;
  std::string before;
  ASSERT_TRUE(ReadAll(cluster, Request("ROMEO:\n", 30), &before).ok());
  ASSERT_TRUE(cluster.RestartCoordinator().ok());
  ASSERT_TRUE(cluster.WaitUntilReady().ok()) << cluster.Logs();
  std::string after;
  const grpc::Status status = ReadAll(cluster, Request("ROMEO:\n", 30), &after);
  EXPECT_TRUE(status.ok()) << status.error_message() << cluster.Logs();
  EXPECT_EQ(after, before);
}

TEST(Membership, CoordinatorWithoutWorkersSaysSo) {
  LocalCluster::Options options;
  options.stages = 2;
  options.workers = 1;
  options.wait_until_ready = false;
  auto started = LocalCluster::Start(options);
  ASSERT_TRUE(started.ok()) << started.status();
  std::string text;
  const grpc::Status status = ReadAll(**started, Request("A", 1), &text);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_NE(status.error_message().find("worker"), std::string::npos)
      << status.error_message();
}

TEST(Membership, SecondWorkerOfTheSameIdIsNotLetIn) {
  LocalCluster::Options options;
  options.stages = 1;
  auto started = LocalCluster::Start(options);
  ASSERT_TRUE(started.ok()) << started.status();
  LocalCluster& cluster = **started;
  // A twin under worker-0's name.
  ASSERT_TRUE(cluster.StartWorker(1, {"--worker_id=worker-0"}).ok());
  std::string text;
  ASSERT_TRUE(ReadAll(cluster, Request("ROMEO:\n", 100), &text).ok());
  grpc::ClientContext context;
  SetDeadline(&context);
  v1::ListWorkersResponse workers;
  ASSERT_TRUE(cluster.cluster().ListWorkers(&context, {}, &workers).ok());
  EXPECT_EQ(workers.workers_size(), 1);
  EXPECT_EQ(workers.workers(0).state(), v1::WORKER_STATE_READY);
}

TEST(Membership, WorkerWithoutACertificateStaysOut) {
  LocalCluster::Options options;
  options.stages = 1;
  options.tls = true;
  auto started = LocalCluster::Start(options);
  ASSERT_TRUE(started.ok()) << started.status();
  LocalCluster& cluster = **started;
  auto plaintext = Credentials::Create({});
  ASSERT_TRUE(plaintext.ok());
  auto channel = (*plaintext)->CreateChannel(cluster.server());
  ASSERT_TRUE(channel.ok());
  auto stub = v1::ClusterService::NewStub(*channel);
  grpc::ClientContext context;
  SetDeadline(&context, absl::Seconds(5));
  v1::RegisterWorkerRequest request;
  request.set_worker_id("intruder");
  v1::RegisterWorkerResponse response;
  EXPECT_EQ(stub->RegisterWorker(&context, request, &response).error_code(),
            grpc::StatusCode::UNAVAILABLE);

  // A client's certificate opens the public service, not the cluster's.
  grpc::ClientContext client_context;
  SetDeadline(&client_context);
  EXPECT_EQ(cluster.cluster()
                .RegisterWorker(&client_context, request, &response)
                .error_code(),
            grpc::StatusCode::PERMISSION_DENIED);
  std::string text;
  EXPECT_TRUE(ReadAll(cluster, Request("A", 2), &text).ok());
}

TEST(Membership, WorkerOfAnotherProtocolOrArithmeticIsRefused) {
  LocalCluster::Options options;
  options.stages = 1;
  auto started = LocalCluster::Start(options);
  ASSERT_TRUE(started.ok()) << started.status();
  LocalCluster& cluster = **started;
  v1::RegisterWorkerRequest request;
  request.set_worker_id("stranger");
  request.set_incarnation(1);
  request.set_protocol_version(99);
  request.set_address("127.0.0.1:1");
  request.mutable_capabilities()->set_numerics_class("cpu-1");
  request.mutable_capabilities()->set_memory_bytes(int64_t{1} << 30);
  request.mutable_capabilities()->set_thread_count(1);
  request.mutable_capabilities()->set_repeat_max_limit(1);
  v1::RegisterWorkerResponse response;
  {
    grpc::ClientContext context;
    SetDeadline(&context);
    const grpc::Status status =
        cluster.cluster().RegisterWorker(&context, request, &response);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
    EXPECT_NE(status.error_message().find("99"), std::string::npos)
        << status.error_message();
  }
  {
    grpc::ClientContext context;
    SetDeadline(&context);
    request.set_protocol_version(1);
    request.mutable_capabilities()->set_numerics_class("abacus-3");
    const grpc::Status status =
        cluster.cluster().RegisterWorker(&context, request, &response);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
    EXPECT_NE(status.error_message().find("abacus-3"), std::string::npos)
        << status.error_message();
  }
}

// A copy of the demo model without its last `cut` bytes.
std::string TruncatedCopy(const std::string& name, int64_t cut) {
  std::ifstream in("models/demo/shakespeare-demo-i2_s.gguf", std::ios::binary);
  std::string bytes((std::istreambuf_iterator<char>(in)),
                    std::istreambuf_iterator<char>());
  bytes.resize(bytes.size() - cut);
  const std::string path =
      absl::StrCat(getenv("TEST_TMPDIR"), "/", name, ".gguf");
  std::ofstream(path, std::ios::binary) << bytes;
  return path;
}

TEST(Membership, WorkerRefusesATruncatedModelByName) {
  LocalCluster::Options options;
  options.stages = 1;
  options.wait_until_ready = false;
  const std::string path = TruncatedCopy("cut", 100000);
  options.worker_flags = {"--model=" + path,
                          "--model_name=shakespeare-demo-i2_s"};
  auto started = LocalCluster::Start(options);
  ASSERT_TRUE(started.ok()) << started.status();
  // The worker says what is wrong with its file and ends with an error.
  auto code = (*started)->worker(0).Wait(absl::Seconds(20));
  ASSERT_TRUE(code.ok()) << code.status();
  EXPECT_EQ(*code, 1);
  EXPECT_NE((*started)->worker(0).Log().find("cut.gguf"), std::string::npos)
      << (*started)->worker(0).Log();
  EXPECT_TRUE((*started)->coordinator().running());
}

}  // namespace
}  // namespace tern
