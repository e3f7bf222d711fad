#include "client/fake_cluster.h"

#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "grpcpp/health_check_service_interface.h"
#include "grpcpp/server_builder.h"
#include "util/logging.h"

namespace tern {
namespace {

template <typename Signature, typename... Arguments>
grpc::Status Run(const Handler<Signature>& handler, Arguments&&... arguments) {
  const std::function<Signature> function = handler.get();
  if (!function) return grpc::Status(grpc::StatusCode::UNIMPLEMENTED, "fake");
  return function(std::forward<Arguments>(arguments)...);
}

}  // namespace

class FakeCluster::Inference final : public v1::InferenceService::Service {
 public:
  explicit Inference(FakeCluster* fake) : fake_(fake) {}

  grpc::Status Generate(grpc::ServerContext* context,
                        const v1::GenerateRequest* request,
                        v1::GenerateResponse* response) override {
    fake_->Record(*request);
    return Run(fake_->on_generate, context, *request, response);
  }

  grpc::Status StreamGenerate(grpc::ServerContext* context,
                              const v1::StreamGenerateRequest* request,
                              StreamWriter* writer) override {
    fake_->Record(request->request());
    return Run(fake_->on_stream, context, request->request(), writer);
  }

  grpc::Status ResumeGenerate(grpc::ServerContext* context,
                              const v1::ResumeGenerateRequest* request,
                              StreamWriter* writer) override {
    return Run(fake_->on_resume, context, *request, writer);
  }

  grpc::Status BatchGenerate(grpc::ServerContext* context,
                             BatchStream* stream) override {
    return Run(fake_->on_batch, context, stream);
  }

  grpc::Status Abort(grpc::ServerContext* context,
                     const v1::AbortRequest* request,
                     v1::AbortResponse* response) override {
    return Run(fake_->on_abort, *request, response);
  }

  grpc::Status Tokenize(grpc::ServerContext* context,
                        const v1::TokenizeRequest* request,
                        v1::TokenizeResponse* response) override {
    return Run(fake_->on_tokenize, *request, response);
  }

  grpc::Status Detokenize(grpc::ServerContext* context,
                          const v1::DetokenizeRequest* request,
                          v1::DetokenizeResponse* response) override {
    return Run(fake_->on_detokenize, *request, response);
  }

  grpc::Status ListModels(grpc::ServerContext* context,
                          const v1::ListModelsRequest* request,
                          v1::ListModelsResponse* response) override {
    return Run(fake_->on_list_models, *request, response);
  }

  grpc::Status GetModel(grpc::ServerContext* context,
                        const v1::GetModelRequest* request,
                        v1::GetModelResponse* response) override {
    return Run(fake_->on_get_model, *request, response);
  }

 private:
  FakeCluster* const fake_;
};

class FakeCluster::Cluster final : public v1::ClusterService::Service {
 public:
  explicit Cluster(FakeCluster* fake) : fake_(fake) {}

  grpc::Status ListWorkers(grpc::ServerContext* context,
                           const v1::ListWorkersRequest* request,
                           v1::ListWorkersResponse* response) override {
    return Run(fake_->on_list_workers, *request, response);
  }

 private:
  FakeCluster* const fake_;
};

FakeCluster::FakeCluster(const CredentialOptions& options)
    : inference_(std::make_unique<Inference>(this)),
      cluster_(std::make_unique<Cluster>(this)) {
  auto credentials = Credentials::Create(options);
  CHECK(credentials.ok()) << credentials.status();
  credentials_ = std::move(credentials).value();
  grpc::EnableDefaultHealthCheckService(true);
  grpc::ServerBuilder builder;
  int port = 0;
  CHECK(credentials_->AddListeningPort("127.0.0.1:0", &builder, &port).ok());
  builder.RegisterService(inference_.get());
  builder.RegisterService(cluster_.get());
  server_ = builder.BuildAndStart();
  CHECK(server_ != nullptr);
  address_ = absl::StrCat("127.0.0.1:", port);
  SetServing("", true);
  SetServing("liveness", true);
}

FakeCluster::~FakeCluster() {
  // Handlers that wait for their caller see a cancelled context from now on.
  server_->Shutdown(std::chrono::system_clock::now());
  server_->Wait();
}

void FakeCluster::SetServing(const std::string& service, bool serving) {
  server_->GetHealthCheckService()->SetServingStatus(service, serving);
}

void FakeCluster::Record(const v1::GenerateRequest& request) {
  absl::MutexLock lock(&mu_);
  requests_.push_back(request);
}

bool FakeCluster::WaitForCalls(int count, absl::Duration timeout) {
  absl::MutexLock lock(&mu_);
  const auto enough = [this, count]() ABSL_SHARED_LOCKS_REQUIRED(mu_) {
    return static_cast<int>(requests_.size()) >= count;
  };
  return mu_.AwaitWithTimeout(absl::Condition(&enough), timeout);
}

std::vector<v1::GenerateRequest> FakeCluster::requests() {
  absl::MutexLock lock(&mu_);
  return requests_;
}

grpc::Status StreamPieces(const v1::GenerateRequest& request,
                          const std::vector<std::string>& pieces,
                          FakeCluster::StreamWriter* writer) {
  v1::StreamGenerateResponse message;
  message.mutable_prompt_info()->set_request_id(request.request_id());
  message.mutable_prompt_info()->set_prompt_token_count(3);
  message.mutable_prompt_info()->set_seed(request.sampling().seed());
  writer->Write(message);
  for (const std::string& piece : pieces) {
    message.Clear();
    message.mutable_delta()->set_text(piece);
    writer->Write(message);
  }
  message.Clear();
  message.mutable_delta()->set_finish_reason(v1::FINISH_REASON_LENGTH);
  message.mutable_usage()->set_prompt_token_count(3);
  message.mutable_usage()->set_output_token_count(
      static_cast<int>(pieces.size()));
  writer->Write(message);
  return grpc::Status::OK;
}

}  // namespace tern
