// What operators changed by call outlives the coordinator: loaded models and
// drained workers.

#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "client/client.h"
#include "gmock/gmock.h"
#include "grpcpp/channel.h"
#include "grpcpp/client_context.h"
#include "gtest/gtest.h"
#include "proto/tern/v1/admin.grpc.pb.h"
#include "proto/tern/v1/admin.pb.h"
#include "proto/tern/v1/cluster.grpc.pb.h"
#include "proto/tern/v1/cluster.pb.h"
#include "proto/tern/v1/inference.pb.h"
#include "tests/integration/local_cluster.h"
#include "util/credentials.h"

namespace tern {
namespace {

using ::testing::HasSubstr;

constexpr char kDemo[] = "models/demo/shakespeare-demo-i2_s.gguf";
constexpr absl::Duration kPatience = absl::Seconds(120);

class OperatorStateTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = absl::StrCat(::testing::TempDir(), "/operators-XXXXXX");
    ASSERT_NE(mkdtemp(&folder_[0]), nullptr);
    second_ = folder_ + "/second.gguf";
    LinkSecond();
  }

  void LinkSecond() {
    char* real = realpath(kDemo, nullptr);
    ASSERT_NE(real, nullptr);
    ASSERT_EQ(symlink(real, second_.c_str()), 0);
    free(real);
  }

  // With a worker that has the second model's file alone.
  void Start(bool standby) {
    LocalCluster::Options options;
    options.standby = standby;
    options.coordinator_flags = {"--journal_dir=" + folder_ + "/journal",
                                 "--models_dir=" + folder_};
    auto cluster = LocalCluster::Start(std::move(options));
    ASSERT_TRUE(cluster.ok()) << cluster.status();
    cluster_ = *std::move(cluster);
    channel_ = cluster_->channel();
    ASSERT_TRUE(cluster_->StartWorker(1, {"--model=" + second_}).ok());
    ClientOptions client;
    client.server = cluster_->server();
    auto made = Client::Create(client);
    ASSERT_TRUE(made.ok()) << made.status();
    client_ = *std::move(made);
  }

  void Restart() {
    ASSERT_TRUE(cluster_->RestartCoordinator().ok()) << cluster_->Logs();
    channel_ = cluster_->channel();
  }

  // Kills the coordinator; the standby takes its place.
  void TakeOver() {
    cluster_->coordinator().Signal(SIGKILL);
    const absl::Time deadline = absl::Now() + kPatience;
    while (cluster_->standby().Log().find("event=coordinator_up") ==
           std::string::npos) {
      ASSERT_LT(absl::Now(), deadline) << cluster_->standby().Log();
    }
    const std::vector<std::string> servers =
        absl::StrSplit(cluster_->server(), ',');
    auto credentials = Credentials::Create({});
    ASSERT_TRUE(credentials.ok());
    auto channel = (*credentials)->CreateChannel(servers.at(1));
    ASSERT_TRUE(channel.ok());
    channel_ = *channel;
  }

  grpc::Status Load() {
    v1::LoadModelRequest request;
    request.set_file("second.gguf");
    request.set_kv_cache_tokens(4096);
    v1::LoadModelResponse response;
    grpc::ClientContext context;
    return v1::AdminService::NewStub(channel_)->LoadModel(&context, request,
                                                          &response);
  }
  grpc::Status Unload() {
    v1::UnloadModelRequest request;
    request.set_model("second");
    v1::UnloadModelResponse response;
    grpc::ClientContext context;
    return v1::AdminService::NewStub(channel_)->UnloadModel(&context, request,
                                                            &response);
  }
  grpc::Status Cordon(const std::string& worker_id, bool cordoned) {
    v1::CordonWorkerRequest request;
    request.set_worker_id(worker_id);
    request.set_cordoned(cordoned);
    v1::CordonWorkerResponse response;
    grpc::ClientContext context;
    return v1::AdminService::NewStub(channel_)->CordonWorker(&context, request,
                                                             &response);
  }

  std::string ModelNames() {
    const auto models = client_->ListModels({});
    EXPECT_TRUE(models.ok()) << models.status();
    std::vector<std::string> names;
    for (const v1::Model& model : models->models()) {
      names.push_back(model.name());
    }
    std::sort(names.begin(), names.end());
    return absl::StrJoin(names, " ");
  }

  // Waits until the worker is registered and in that state.
  void AwaitState(const std::string& worker_id, v1::WorkerState state) {
    const absl::Time deadline = absl::Now() + kPatience;
    v1::ListWorkersResponse response;
    while (absl::Now() < deadline) {
      grpc::ClientContext context;
      const auto status = v1::ClusterService::NewStub(channel_)->ListWorkers(
          &context, {}, &response);
      ASSERT_TRUE(status.ok()) << status.error_message();
      for (const v1::Worker& worker : response.workers()) {
        if (worker.worker_id() == worker_id && worker.state() == state) return;
      }
    }
    ADD_FAILURE() << response.DebugString() << cluster_->Logs();
  }

  // A whole answer of the second model; `on_first` is called once it has begun.
  std::vector<int32_t> Ask(const std::function<void()>& on_first = {}) {
    v1::GenerateRequest request;
    request.set_model("second");
    request.set_text("ROMEO:\n");
    request.mutable_sampling()->set_temperature(0);
    request.mutable_stopping()->set_max_output_tokens(200);
    request.mutable_stopping()->set_ignore_end_of_sequence(true);
    request.mutable_response_options()->set_return_token_ids(true);
    CallOptions call;
    call.deadline = kPatience;
    call.resume_window = absl::Minutes(1);
    bool has_begun = false;
    std::vector<int32_t> ids;
    const absl::Status status = client_->StreamGenerate(
        request,
        [&](const v1::StreamGenerateResponse& message) {
          ids.insert(ids.end(), message.delta().token_ids().begin(),
                     message.delta().token_ids().end());
          if (ids.size() >= 5 && !has_begun) {
            has_begun = true;
            if (on_first) on_first();
          }
          return true;
        },
        call);
    EXPECT_TRUE(status.ok()) << status << cluster_->Logs();
    return ids;
  }

  std::string folder_;
  std::string second_;
  std::unique_ptr<LocalCluster> cluster_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<Client> client_;
};

TEST_F(OperatorStateTest, AModelLoadedByCallIsServedByTheNextWithItsRequests) {
  Start(/*standby=*/false);
  ASSERT_TRUE(Load().ok());
  AwaitState("worker-1", v1::WORKER_STATE_READY);
  const std::vector<int32_t> expected = Ask();
  ASSERT_EQ(expected.size(), 200u);
  // Its request too goes on with the very tokens.
  EXPECT_EQ(Ask([this] { Restart(); }), expected);
  const auto models = client_->ListModels({});
  ASSERT_TRUE(models.ok());
  for (const v1::Model& model : models->models()) {
    if (model.name() != "second") continue;
    // As it was loaded.
    ASSERT_EQ(model.pipelines_size(), 1);
    EXPECT_EQ(model.pipelines(0).kv_block_count(), 4096 / 16);
  }

  // One that cannot be had keeps nobody from being served.
  ASSERT_EQ(unlink(second_.c_str()), 0);
  Restart();
  EXPECT_EQ(ModelNames(), "shakespeare-demo-i2_s");
  EXPECT_THAT(cluster_->coordinator().Log(),
              HasSubstr("event=model_not_restored model=second"));
  LinkSecond();
  Restart();
  EXPECT_EQ(ModelNames(), "second shakespeare-demo-i2_s");

  grpc::Status status = Unload();
  ASSERT_TRUE(status.ok()) << status.error_message();
  Restart();
  EXPECT_EQ(ModelNames(), "shakespeare-demo-i2_s");
  EXPECT_EQ(Unload().error_code(), grpc::StatusCode::NOT_FOUND);
}

TEST_F(OperatorStateTest, AModelThatCannotBeRestoredCanBeForgotten) {
  Start(/*standby=*/false);
  ASSERT_TRUE(Load().ok());
  ASSERT_EQ(unlink(second_.c_str()), 0);
  Restart();
  const grpc::Status status = Unload();
  EXPECT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(Unload().error_code(), grpc::StatusCode::NOT_FOUND);
}

TEST_F(OperatorStateTest, ADrainedWorkerStaysOutOfServiceUntilItIsPutBack) {
  Start(/*standby=*/false);
  AwaitState("worker-0", v1::WORKER_STATE_READY);
  ASSERT_TRUE(Cordon("worker-0", true).ok());
  AwaitState("worker-0", v1::WORKER_STATE_DRAINING);
  Restart();
  AwaitState("worker-0", v1::WORKER_STATE_DRAINING);
  ASSERT_TRUE(Cordon("worker-0", false).ok());
  AwaitState("worker-0", v1::WORKER_STATE_READY);
  Restart();
  AwaitState("worker-0", v1::WORKER_STATE_READY);
}

TEST_F(OperatorStateTest, AStandbyTakesItOver) {
  Start(/*standby=*/true);
  ASSERT_TRUE(Load().ok());
  AwaitState("worker-0", v1::WORKER_STATE_READY);
  AwaitState("worker-1", v1::WORKER_STATE_READY);
  ASSERT_TRUE(Cordon("worker-0", true).ok());
  TakeOver();
  AwaitState("worker-0", v1::WORKER_STATE_DRAINING);
  AwaitState("worker-1", v1::WORKER_STATE_READY);
  EXPECT_EQ(ModelNames(), "second shakespeare-demo-i2_s");
}

}  // namespace
}  // namespace tern
