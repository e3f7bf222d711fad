// Several models behind one coordinator, loaded and unloaded while it runs, and
// workers that an operator takes out of service.

#include <stdlib.h>
#include <unistd.h>

#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "grpcpp/client_context.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/security/credentials.h"
#include "gtest/gtest.h"
#include "proto/tern/v1/admin.grpc.pb.h"
#include "proto/tern/v1/admin.pb.h"
#include "proto/tern/v1/cluster.pb.h"
#include "proto/tern/v1/inference.pb.h"
#include "tests/integration/local_cluster.h"
#include "util/credentials.h"

namespace tern {
namespace {

using ::testing::HasSubstr;

constexpr char kDemo[] = "models/demo/shakespeare-demo-i2_s.gguf";
constexpr char kDemoName[] = "shakespeare-demo-i2_s";
constexpr absl::Duration kPatience = absl::Seconds(120);

template <typename Message, typename Method, typename Request>
grpc::Status Call(Method method, const Request& request, Message* response) {
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(absl::Now() + kPatience));
  return method(&context, request, response);
}

class ModelsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const char* base = getenv("TEST_TMPDIR");
    dir_ = absl::StrCat(base ? base : "/tmp", "/models-XXXXXX");
    ASSERT_NE(mkdtemp(&dir_[0]), nullptr);
    char* real = realpath(kDemo, nullptr);
    ASSERT_NE(real, nullptr);
    second_ = dir_ + "/second.gguf";
    ASSERT_EQ(symlink(real, second_.c_str()), 0);
    free(real);
  }

  void Start(LocalCluster::Options options) {
    options.coordinator_flags.push_back("--models_dir=" + dir_);
    auto cluster = LocalCluster::Start(std::move(options));
    ASSERT_TRUE(cluster.ok()) << cluster.status();
    cluster_ = *std::move(cluster);
    admin_ = v1::AdminService::NewStub(cluster_->channel());
  }

  // "" or what went wrong.
  grpc::Status Load(const std::string& file, const std::string& name = "") {
    v1::LoadModelRequest request;
    request.set_file(file);
    request.set_model(name);
    v1::LoadModelResponse response;
    return Call([&](auto... args) { return admin_->LoadModel(args...); },
                request, &response);
  }

  grpc::Status Unload(const std::string& name, int drain_seconds,
                      v1::UnloadModelResponse* response) {
    v1::UnloadModelRequest request;
    request.set_model(name);
    request.mutable_drain_timeout()->set_seconds(drain_seconds);
    return Call([&](auto... args) { return admin_->UnloadModel(args...); },
                request, response);
  }

  grpc::Status Cordon(const std::string& worker_id, bool cordoned) {
    v1::CordonWorkerRequest request;
    request.set_worker_id(worker_id);
    request.set_cordoned(cordoned);
    v1::CordonWorkerResponse response;
    return Call([&](auto... args) { return admin_->CordonWorker(args...); },
                request, &response);
  }

  grpc::Status Generate(const std::string& model, int n_tokens,
                        std::string* text) {
    v1::GenerateRequest request;
    request.set_model(model);
    request.set_text("ROMEO:\nIs it");
    request.mutable_sampling()->set_temperature(0);
    request.mutable_stopping()->set_max_output_tokens(n_tokens);
    request.mutable_stopping()->set_ignore_end_of_sequence(true);
    v1::GenerateResponse response;
    const grpc::Status status = Call(
        [&](auto... args) { return cluster_->inference().Generate(args...); },
        request, &response);
    if (status.ok()) *text = response.candidates(0).text();
    return status;
  }

  v1::ListModelsResponse Models() {
    v1::ListModelsResponse response;
    const grpc::Status status = Call(
        [&](auto... args) { return cluster_->inference().ListModels(args...); },
        v1::ListModelsRequest(), &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response;
  }

  // Waits until the model has so many pipelines that serve.
  void AwaitPipelines(const std::string& model, int n) {
    const absl::Time deadline = absl::Now() + kPatience;
    while (absl::Now() < deadline) {
      const v1::ListModelsResponse models = Models();
      for (const v1::Model& listed : models.models()) {
        int n_ready = 0;
        for (const v1::Pipeline& pipeline : listed.pipelines()) {
          n_ready += pipeline.state() == v1::PIPELINE_STATE_READY;
        }
        if (listed.name() == model && n_ready == n) return;
      }
    }
    ADD_FAILURE() << model << " never had " << n << " pipelines\n"
                  << cluster_->Logs();
  }

  v1::Worker WorkerOf(const std::string& id) {
    v1::ListWorkersResponse response;
    const grpc::Status status = Call(
        [&](auto... args) { return cluster_->cluster().ListWorkers(args...); },
        v1::ListWorkersRequest(), &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    for (const v1::Worker& worker : response.workers()) {
      if (worker.worker_id() == id) return worker;
    }
    return {};
  }

  // Waits until the worker has a stage, or none.
  v1::Worker AwaitStage(const std::string& id, bool has_stage) {
    const absl::Time deadline = absl::Now() + kPatience;
    v1::Worker worker;
    while (absl::Now() < deadline) {
      worker = WorkerOf(id);
      if (worker.pipeline_id().empty() != has_stage) return worker;
    }
    ADD_FAILURE() << worker.ShortDebugString() << cluster_->Logs();
    return worker;
  }

  std::string dir_;
  std::string second_;
  std::unique_ptr<LocalCluster> cluster_;
  std::unique_ptr<v1::AdminService::Stub> admin_;
};

TEST_F(ModelsTest, AModelIsLoadedServedAndUnloadedBesideAnother) {
  Start({});
  ASSERT_TRUE(cluster_->StartWorker(1, {"--model=" + second_}).ok());
  std::string expected;
  ASSERT_TRUE(Generate("", 40, &expected).ok());

  std::string text;
  grpc::Status status = Generate("second", 40, &text);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND);
  status = Load("second.gguf");
  ASSERT_TRUE(status.ok()) << status.error_message();
  AwaitPipelines("second", 1);
  status = Generate("second", 40, &text);
  EXPECT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(text, expected);
  // Which of the two is no longer clear without a name.
  status = Generate("", 40, &text);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr("second"));
  EXPECT_EQ(Load("second.gguf").error_code(), grpc::StatusCode::ALREADY_EXISTS);

  // What runs when its time is over is told so, and nobody else notices.
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(absl::Now() + kPatience));
  v1::StreamGenerateRequest request;
  request.mutable_request()->set_model("second");
  request.mutable_request()->set_text("ROMEO:\n");
  request.mutable_request()->mutable_stopping()->set_max_output_tokens(900);
  request.mutable_request()->mutable_stopping()->set_ignore_end_of_sequence(
      true);
  auto reader = cluster_->inference().StreamGenerate(&context, request);
  v1::StreamGenerateResponse message;
  ASSERT_TRUE(reader->Read(&message));
  ASSERT_TRUE(reader->Read(&message));
  v1::UnloadModelResponse unloaded;
  status = Unload("second", 0, &unloaded);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(unloaded.ended_request_count(), 1);
  while (reader->Read(&message)) {
  }
  status = reader->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_THAT(status.error_message(), HasSubstr("unloaded"));
  EXPECT_EQ(Unload("second", 0, &unloaded).error_code(),
            grpc::StatusCode::NOT_FOUND);
  ASSERT_TRUE(Generate("", 40, &text).ok());
  EXPECT_EQ(text, expected);

  // And again, this time with time for what runs.
  ASSERT_TRUE(Load("second.gguf").ok());
  AwaitPipelines("second", 1);
  grpc::ClientContext again;
  again.set_deadline(absl::ToChronoTime(absl::Now() + kPatience));
  request.mutable_request()->mutable_stopping()->set_max_output_tokens(200);
  reader = cluster_->inference().StreamGenerate(&again, request);
  ASSERT_TRUE(reader->Read(&message));
  ASSERT_TRUE(Unload("second", 60, &unloaded).ok());
  EXPECT_EQ(unloaded.ended_request_count(), 0);
  while (reader->Read(&message)) {
  }
  EXPECT_TRUE(reader->Finish().ok());
}

TEST_F(ModelsTest, WorkersWithTheFilesOfBothMoveToWhereTheyAreNeeded) {
  LocalCluster::Options options;
  options.workers = 3;
  options.worker_flags = {absl::StrCat("--model=", kDemo, ",", second_)};
  Start(options);
  AwaitPipelines(kDemoName, 3);
  std::string expected;
  ASSERT_TRUE(Generate("", 40, &expected).ok());

  // One of the three goes over, and its answers go on elsewhere.
  ASSERT_TRUE(Load("second.gguf").ok());
  AwaitPipelines("second", 1);
  AwaitPipelines(kDemoName, 2);
  std::string text;
  for (const char* model : {"second", kDemoName}) {
    const grpc::Status status = Generate(model, 40, &text);
    EXPECT_TRUE(status.ok()) << status.error_message();
    EXPECT_EQ(text, expected) << model;
  }

  v1::UnloadModelResponse unloaded;
  ASSERT_TRUE(Unload(kDemoName, 60, &unloaded).ok());
  AwaitPipelines("second", 3);
  ASSERT_TRUE(Generate("", 40, &text).ok());
  EXPECT_EQ(text, expected);
}

TEST_F(ModelsTest, ACoordinatorMayStartWithoutAModel) {
  LocalCluster::Options options;
  options.coordinator_flags = {"--model="};
  options.wait_until_ready = false;
  Start(options);
  std::string text;
  grpc::Status status = Generate("", 5, &text);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(Models().models_size(), 0);
  // The worker has waited for this.
  ASSERT_TRUE(Load("second.gguf", kDemoName).ok());
  AwaitPipelines(kDemoName, 1);
  status = Generate("", 5, &text);
  EXPECT_TRUE(status.ok()) << status.error_message();
}

TEST_F(ModelsTest, RefusesWhatItCannotLoad) {
  Start({});
  for (const char* file : {"", ".", "..", "../second.gguf", "/etc/passwd"}) {
    EXPECT_EQ(Load(file).error_code(), grpc::StatusCode::INVALID_ARGUMENT)
        << file;
  }
  EXPECT_EQ(Load("third.gguf").error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(Load("second.gguf", kDemoName).error_code(),
            grpc::StatusCode::ALREADY_EXISTS);
  v1::UnloadModelResponse response;
  EXPECT_EQ(Unload("third", 0, &response).error_code(),
            grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(Unload(kDemoName, -1, &response).error_code(),
            grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(Cordon("nobody", true).error_code(), grpc::StatusCode::NOT_FOUND);
}

TEST_F(ModelsTest, OnlyOperatorsMayLoadAndCordonWithTls) {
  LocalCluster::Options options;
  options.tls = true;
  Start(options);
  EXPECT_EQ(Load("second.gguf").error_code(),
            grpc::StatusCode::PERMISSION_DENIED);
  EXPECT_EQ(Cordon("worker-0", true).error_code(),
            grpc::StatusCode::PERMISSION_DENIED);
  CredentialOptions files = cluster_->client_credentials();
  const std::string folder =
      files.ca_file.substr(0, files.ca_file.rfind('/') + 1);
  files.cert_file = folder + "operator.pem";
  files.key_file = folder + "operator.key";
  auto credentials = Credentials::Create(files);
  ASSERT_TRUE(credentials.ok()) << credentials.status();
  auto channel = (*credentials)->CreateChannel(cluster_->server());
  ASSERT_TRUE(channel.ok()) << channel.status();
  admin_ = v1::AdminService::NewStub(*channel);
  grpc::Status status = Load("second.gguf");
  EXPECT_TRUE(status.ok()) << status.error_message();
}

TEST_F(ModelsTest, ACordonedWorkerServesNoMoreUntilItIsPutBack) {
  LocalCluster::Options options;
  options.workers = 2;
  Start(options);
  AwaitPipelines(kDemoName, 2);
  std::string expected;
  ASSERT_TRUE(Generate("", 300, &expected).ok());

  std::string moved;
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(absl::Now() + kPatience));
  v1::StreamGenerateRequest request;
  request.mutable_request()->set_text("ROMEO:\nIs it");
  request.mutable_request()->mutable_sampling()->set_temperature(0);
  request.mutable_request()->mutable_stopping()->set_max_output_tokens(300);
  request.mutable_request()->mutable_stopping()->set_ignore_end_of_sequence(
      true);
  auto reader = cluster_->inference().StreamGenerate(&context, request);
  v1::StreamGenerateResponse message;
  ASSERT_TRUE(reader->Read(&message));
  for (const char* id : {"worker-0", "worker-1"}) {
    ASSERT_TRUE(Cordon(id, true).ok());
    const v1::Worker worker = AwaitStage(id, false);
    EXPECT_EQ(worker.state(), v1::WORKER_STATE_DRAINING);
    ASSERT_TRUE(Cordon(id, false).ok());
    EXPECT_NE(AwaitStage(id, true).state(), v1::WORKER_STATE_DRAINING);
    AwaitPipelines(kDemoName, 2);
  }
  while (reader->Read(&message)) {
    moved += message.delta().text();
  }
  const grpc::Status status = reader->Finish();
  EXPECT_TRUE(status.ok()) << status.error_message() << cluster_->Logs();
  EXPECT_EQ(moved, expected);
}

TEST_F(ModelsTest, ACordonOutlivesTheWorkersRestart) {
  LocalCluster::Options options;
  options.workers = 2;
  Start(options);
  AwaitPipelines(kDemoName, 2);
  ASSERT_TRUE(Cordon("worker-1", true).ok());
  AwaitStage("worker-1", false);
  cluster_->worker(1).Signal(9);
  ASSERT_TRUE(cluster_->worker(1).Wait(kPatience).ok());
  ASSERT_TRUE(cluster_->StartWorker(1).ok());
  // Its new process is known.
  const absl::Time deadline = absl::Now() + kPatience;
  while (WorkerOf("worker-1").state() != v1::WORKER_STATE_DRAINING &&
         absl::Now() < deadline) {
  }
  AwaitPipelines(kDemoName, 1);
  EXPECT_EQ(WorkerOf("worker-1").state(), v1::WORKER_STATE_DRAINING);
  EXPECT_EQ(WorkerOf("worker-1").pipeline_id(), "");
}

}  // namespace
}  // namespace tern
