#include "coordinator/cluster_service.h"

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "coordinator/cluster_view.h"
#include "coordinator/engine.h"
#include "google/protobuf/duration.pb.h"
#include "util/credentials.h"
#include "util/grpc_status.h"

namespace tern {
namespace {

void SetDuration(absl::Duration duration, google::protobuf::Duration* out) {
  const int64_t seconds =
      absl::IDivDuration(duration, absl::Seconds(1), &duration);
  out->set_seconds(seconds);
  out->set_nanos(static_cast<int32_t>(absl::ToInt64Nanoseconds(duration)));
}

WorkerRegistration FromProto(const v1::RegisterWorkerRequest& request) {
  const v1::WorkerCapabilities& from = request.capabilities();
  WorkerRegistration out;
  out.worker_id = request.worker_id();
  out.incarnation = request.incarnation();
  out.protocol_version = request.protocol_version();
  out.address = request.address();
  out.numerics_class = from.numerics_class();
  out.memory_bytes = from.memory_bytes();
  out.thread_count = from.thread_count();
  out.kernel_isa = from.kernel_isa();
  out.device = from.device();
  out.thread_placement = from.thread_placement();
  out.models.assign(from.models().begin(), from.models().end());
  out.supports_step_token_source = from.supports_step_token_source();
  out.repeat_max_limit = from.repeat_max_limit();
  if (from.has_packed_blocks()) {
    out.packed_blocks = {from.packed_blocks().column_count(),
                         from.packed_blocks().byte_count()};
  }
  out.can_fetch_weights = from.can_fetch_weights();
  return out;
}

void ToProto(const Engine::WorkerStatus& from, v1::Worker* out) {
  const Worker& worker = from.worker;
  const WorkerRegistration& registration = worker.registration;
  out->set_worker_id(registration.worker_id);
  out->set_address(registration.address);
  v1::WorkerCapabilities* capabilities = out->mutable_capabilities();
  capabilities->set_numerics_class(registration.numerics_class);
  capabilities->set_memory_bytes(registration.memory_bytes);
  capabilities->set_thread_count(registration.thread_count);
  capabilities->set_kernel_isa(registration.kernel_isa);
  capabilities->set_device(registration.device);
  capabilities->set_thread_placement(registration.thread_placement);
  for (const std::string& model : registration.models) {
    capabilities->add_models(model);
  }
  capabilities->set_supports_step_token_source(
      registration.supports_step_token_source);
  capabilities->set_repeat_max_limit(registration.repeat_max_limit);
  capabilities->mutable_packed_blocks()->set_column_count(
      registration.packed_blocks.columns);
  capabilities->mutable_packed_blocks()->set_byte_count(
      registration.packed_blocks.bytes);
  capabilities->set_can_fetch_weights(registration.can_fetch_weights);
  SetDuration(from.silence, out->mutable_time_since_heartbeat());
  out->set_finished_step_count(worker.finished_step_count);
  if (worker.lost || worker.unreachable) {
    out->set_state(v1::WORKER_STATE_LOST);
  } else if (worker.hung) {
    out->set_state(v1::WORKER_STATE_HUNG);
  } else if (worker.draining) {
    out->set_state(v1::WORKER_STATE_DRAINING);
  } else if (from.stage < 0) {
    out->set_state(v1::WORKER_STATE_IDLE);
  } else {
    out->set_state(from.phase == Engine::Phase::kReady
                       ? v1::WORKER_STATE_READY
                       : v1::WORKER_STATE_LOADING);
    out->set_pipeline_id(from.pipeline_id);
    out->set_stage_index(from.stage);
  }
}

}  // namespace

grpc::ServerUnaryReactor* ClusterServiceImpl::RegisterWorker(
    grpc::CallbackServerContext* call, const v1::RegisterWorkerRequest* request,
    v1::RegisterWorkerResponse* response) {
  grpc::ServerUnaryReactor* reactor = call->DefaultReactor();
  const absl::Status allowed =
      context_.credentials->CheckCaller(*call, {kWorkerName});
  if (!allowed.ok()) {
    reactor->Finish(ToGrpcStatus(allowed));
    return reactor;
  }
  context_.engine->RegisterWorker(
      FromProto(*request),
      [reactor, response](absl::StatusOr<Engine::Lease> lease) {
        if (lease.ok()) {
          response->set_lease_epoch(lease->epoch);
          SetDuration(lease->duration, response->mutable_lease_duration());
          SetDuration(lease->heartbeat_interval,
                      response->mutable_heartbeat_interval());
          response->set_protocol_version(kProtocolVersion);
        }
        reactor->Finish(ToGrpcStatus(lease.status()));
      });
  return reactor;
}

grpc::ServerUnaryReactor* ClusterServiceImpl::SendHeartbeat(
    grpc::CallbackServerContext* call, const v1::SendHeartbeatRequest* request,
    v1::SendHeartbeatResponse* response) {
  grpc::ServerUnaryReactor* reactor = call->DefaultReactor();
  const absl::Status allowed =
      context_.credentials->CheckCaller(*call, {kWorkerName});
  if (!allowed.ok()) {
    reactor->Finish(ToGrpcStatus(allowed));
    return reactor;
  }
  WorkerHeartbeat heartbeat;
  heartbeat.worker_id = request->worker_id();
  heartbeat.lease_epoch = request->lease_epoch();
  heartbeat.finished_step_count = request->finished_step_count();
  heartbeat.progress = request->progress();
  heartbeat.is_draining = request->is_draining();
  context_.engine->SendHeartbeat(
      std::move(heartbeat),
      [reactor, response](const absl::StatusOr<bool>& released) {
        if (released.ok()) response->set_released(*released);
        reactor->Finish(ToGrpcStatus(released.status()));
      });
  return reactor;
}

grpc::ServerUnaryReactor* ClusterServiceImpl::ListWorkers(
    grpc::CallbackServerContext* call, const v1::ListWorkersRequest* request,
    v1::ListWorkersResponse* response) {
  grpc::ServerUnaryReactor* reactor = call->DefaultReactor();
  context_.engine->Inspect(
      [reactor, response](absl::StatusOr<Engine::Snapshot> snapshot) {
        if (snapshot.ok()) {
          for (const Engine::WorkerStatus& worker : snapshot->workers) {
            ToProto(worker, response->add_workers());
          }
        }
        reactor->Finish(ToGrpcStatus(snapshot.status()));
      });
  return reactor;
}

}  // namespace tern
