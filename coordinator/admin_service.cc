#include "coordinator/admin_service.h"

#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "coordinator/model_registry.h"
#include "coordinator/worker_router.h"
#include "util/credentials.h"
#include "util/grpc_status.h"
#include "util/logging.h"
#include "util/status_macros.h"

namespace tern {
namespace {

// Calls that may wait for the thread.
constexpr int kWaitingMax = 16;

constexpr int kMaxStages = 1024;
constexpr absl::Duration kDrainTimeout = absl::Seconds(30);
constexpr absl::Duration kDrainTimeoutMax = absl::Hours(24);

absl::StatusOr<absl::Duration> DrainTimeoutOf(
    const v1::UnloadModelRequest& request) {
  if (!request.has_drain_timeout()) return kDrainTimeout;
  const absl::Duration timeout =
      absl::Seconds(request.drain_timeout().seconds()) +
      absl::Nanoseconds(request.drain_timeout().nanos());
  if (timeout < absl::ZeroDuration() || timeout > kDrainTimeoutMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("drain_timeout is ", absl::FormatDuration(timeout),
                     "; it must be in [0, 24h]"));
  }
  return timeout;
}

}  // namespace

AdminServiceImpl::AdminServiceImpl(const ServiceContext& context,
                                   Options options)
    : context_(context), options_(std::move(options)), tasks_(kWaitingMax) {
  thread_ = std::thread([this] {
    std::function<void()> task;
    while (tasks_.Pop(&task)) task();
  });
}

AdminServiceImpl::~AdminServiceImpl() {
  tasks_.Close();
  thread_.join();
}

absl::Status AdminServiceImpl::CheckOperator(
    grpc::CallbackServerContext* call) const {
  return context_.credentials->CheckCaller(*call, {kOperatorName});
}

grpc::ServerUnaryReactor* AdminServiceImpl::Enqueue(
    grpc::CallbackServerContext* call, std::function<absl::Status()> task) {
  grpc::ServerUnaryReactor* reactor = call->DefaultReactor();
  absl::Status status = CheckOperator(call);
  if (status.ok() && !tasks_.TryPush([reactor, task = std::move(task)] {
        reactor->Finish(ToGrpcStatus(task()));
      })) {
    status = absl::UnavailableError(
        "the coordinator is shutting down, or has too many such calls to do");
  }
  if (!status.ok()) reactor->Finish(ToGrpcStatus(status));
  return reactor;
}

grpc::ServerUnaryReactor* AdminServiceImpl::LoadModel(
    grpc::CallbackServerContext* call, const v1::LoadModelRequest* request,
    v1::LoadModelResponse* response) {
  return Enqueue(
      call, [this, request, response] { return Load(*request, response); });
}

grpc::ServerUnaryReactor* AdminServiceImpl::UnloadModel(
    grpc::CallbackServerContext* call, const v1::UnloadModelRequest* request,
    v1::UnloadModelResponse* response) {
  return Enqueue(
      call, [this, request, response] { return Unload(*request, response); });
}

grpc::ServerUnaryReactor* AdminServiceImpl::CordonWorker(
    grpc::CallbackServerContext* call, const v1::CordonWorkerRequest* request,
    v1::CordonWorkerResponse* response) {
  grpc::ServerUnaryReactor* reactor = call->DefaultReactor();
  const absl::Status allowed = CheckOperator(call);
  if (!allowed.ok()) {
    reactor->Finish(ToGrpcStatus(allowed));
    return reactor;
  }
  context_.workers->SetCordoned(request->worker_id(), request->cordoned(),
                                [reactor](const absl::Status& status) {
                                  reactor->Finish(ToGrpcStatus(status));
                                });
  return reactor;
}

absl::StatusOr<ModelSpec> AdminServiceImpl::SpecOf(
    const v1::LoadModelRequest& request) const {
  if (options_.models_dir.empty()) {
    return absl::FailedPreconditionError(
        "this coordinator loads no models by call; start it with --models_dir");
  }
  const std::string& file = request.file();
  if (file.empty() || file == "." || file == ".." || file.size() > 255 ||
      file.find('/') != std::string::npos ||
      file.find('\0') != std::string::npos) {
    return absl::InvalidArgumentError(
        absl::StrCat("file is \"", file,
                     "\"; it must be the name of a file or directory in "
                     "the coordinator's --models_dir, without slashes"));
  }
  ModelSpec spec = options_.defaults;
  spec.path = absl::StrCat(options_.models_dir, "/", file);
  spec.name = request.model();
  if (request.has_stage_count()) {
    spec.n_stages = request.stage_count();
    if (spec.n_stages < 1 || spec.n_stages > kMaxStages) {
      return absl::InvalidArgumentError(
          absl::StrCat("stage_count is ", spec.n_stages, "; it must be in [1, ",
                       kMaxStages, "]"));
    }
  }
  if (request.has_kv_cache_tokens()) {
    spec.kv_cache_tokens = request.kv_cache_tokens();
    if (spec.kv_cache_tokens < 1) {
      return absl::InvalidArgumentError(
          absl::StrCat("kv_cache_tokens is ", spec.kv_cache_tokens,
                       "; it must be at least 1"));
    }
  }
  return spec;
}

absl::Status AdminServiceImpl::Load(const v1::LoadModelRequest& request,
                                    v1::LoadModelResponse* response) {
  ASSIGN_OR_RETURN(const ModelSpec spec, SpecOf(request));
  ASSIGN_OR_RETURN(std::shared_ptr<ModelInstance> instance,
                   options_.open(spec));
  response->set_model(instance->name());
  return context_.models->Add(std::move(instance));
}

absl::Status AdminServiceImpl::Unload(const v1::UnloadModelRequest& request,
                                      v1::UnloadModelResponse* response) {
  ASSIGN_OR_RETURN(const absl::Duration timeout, DrainTimeoutOf(request));
  ASSIGN_OR_RETURN(const int n_ended,
                   context_.models->Remove(request.model(), timeout));
  response->set_ended_request_count(n_ended);
  return absl::OkStatus();
}

}  // namespace tern
