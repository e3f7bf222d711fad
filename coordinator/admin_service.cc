#include "coordinator/admin_service.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "coordinator/model_registry.h"
#include "coordinator/operator_store.h"
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

// Not the caller's fault, and nothing to repeat.
absl::Status DoneButForgotten(const absl::Status& written) {
  if (written.ok()) return written;
  return absl::InternalError(
      absl::StrCat("it is done, but the next coordinator will not know: ",
                   written.message()));
}

void EraseModel(const std::string& name, OperatorState* state) {
  state->models.erase(
      std::remove_if(state->models.begin(), state->models.end(),
                     [&](const auto& model) { return model.name == name; }),
      state->models.end());
}

v1::LoadModelRequest RequestOf(const OperatorState::LoadedModel& model) {
  v1::LoadModelRequest request;
  request.set_file(model.file);
  request.set_model(model.name);
  if (model.n_stages.has_value()) request.set_stage_count(*model.n_stages);
  if (model.kv_cache_tokens.has_value()) {
    request.set_kv_cache_tokens(*model.kv_cache_tokens);
  }
  return request;
}

OperatorState::LoadedModel LoadedModelOf(const v1::LoadModelRequest& request,
                                         const std::string& name) {
  OperatorState::LoadedModel model;
  model.name = name;
  model.file = request.file();
  if (request.has_stage_count()) model.n_stages = request.stage_count();
  if (request.has_kv_cache_tokens()) {
    model.kv_cache_tokens = request.kv_cache_tokens();
  }
  return model;
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
  const std::string worker_id = request->worker_id();
  const bool cordoned = request->cordoned();
  // On an engine's thread, which must not wait for the disk.
  const auto remember = [reactor, worker_id, cordoned,
                         operators = context_.operators](absl::Status status) {
    if (!status.ok() || operators == nullptr) {
      reactor->Finish(ToGrpcStatus(status));
      return;
    }
    operators->Update(
        [worker_id, cordoned](OperatorState* state) {
          if (cordoned) {
            state->cordoned.insert(worker_id);
          } else {
            state->cordoned.erase(worker_id);
          }
        },
        [reactor](const absl::Status& written) {
          reactor->Finish(ToGrpcStatus(DoneButForgotten(written)));
        });
  };
  context_.workers->SetCordoned(worker_id, cordoned, remember);
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

absl::Status AdminServiceImpl::Serve(const v1::LoadModelRequest& request,
                                     std::string* name) {
  ASSIGN_OR_RETURN(const ModelSpec spec, SpecOf(request));
  ASSIGN_OR_RETURN(std::shared_ptr<ModelInstance> instance,
                   options_.open(spec));
  *name = instance->name();
  return context_.models->Add(std::move(instance));
}

void AdminServiceImpl::Restore() {
  if (context_.operators == nullptr) return;
  for (const OperatorState::LoadedModel& model :
       context_.operators->state().models) {
    // Named by --model meanwhile.
    if (context_.models->Find(model.name).ok()) continue;
    std::string name;
    const absl::Status status = Serve(RequestOf(model), &name);
    if (status.ok()) continue;
    LOG(ERROR) << "event=model_not_restored model=" << model.name
               << " file=" << model.file << " status=\"" << status
               << "\"; it is tried again at the next start, until it is "
                  "unloaded";
  }
}

absl::Status AdminServiceImpl::Remember(
    std::function<void(OperatorState*)> change) {
  if (context_.operators == nullptr) return absl::OkStatus();
  absl::Status status;
  absl::Notification done;
  context_.operators->Update(std::move(change),
                             [&](const absl::Status& written) {
                               status = DoneButForgotten(written);
                               done.Notify();
                             });
  done.WaitForNotification();
  return status;
}

absl::Status AdminServiceImpl::Load(const v1::LoadModelRequest& request,
                                    v1::LoadModelResponse* response) {
  RETURN_IF_ERROR(Serve(request, response->mutable_model()));
  return Remember([model = LoadedModelOf(request, response->model())](
                      OperatorState* state) {
    EraseModel(model.name, state);
    state->models.push_back(model);
  });
}

absl::Status AdminServiceImpl::Unload(const v1::UnloadModelRequest& request,
                                      v1::UnloadModelResponse* response) {
  ASSIGN_OR_RETURN(const absl::Duration timeout, DrainTimeoutOf(request));
  const absl::StatusOr<int> n_ended =
      context_.models->Remove(request.model(), timeout);
  // One that could not be restored is unloaded by being forgotten.
  if (!n_ended.ok() && !IsRemembered(request.model())) return n_ended.status();
  response->set_ended_request_count(n_ended.value_or(0));
  return Remember([name = request.model()](OperatorState* state) {
    EraseModel(name, state);
  });
}

bool AdminServiceImpl::IsRemembered(const std::string& name) const {
  if (context_.operators == nullptr) return false;
  const OperatorState state = context_.operators->state();
  return std::any_of(state.models.begin(), state.models.end(),
                     [&](const auto& model) { return model.name == name; });
}

}  // namespace tern
