#include "coordinator/cluster_service.h"

#include <map>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "coordinator/cluster_view.h"
#include "coordinator/engine.h"
#include "coordinator/model_registry.h"
#include "coordinator/placement.h"
#include "coordinator/stage_cut.h"
#include "coordinator/worker_router.h"
#include "google/protobuf/duration.pb.h"
#include "model/step_times.h"
#include "util/credentials.h"
#include "util/grpc_status.h"
#include "util/message_checksum.h"

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
  const v1::StepTimes& times = from.step_times();
  out.step_times = {times.layer_step_seconds(), times.layer_token_seconds(),
                    times.layer_context_seconds(), times.head_step_seconds(),
                    times.head_row_seconds()};
  out.link_bytes_per_second = from.link_bytes_per_second();
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
  if (registration.step_times.is_known()) {
    const StepTimes& times = registration.step_times;
    v1::StepTimes* const to = capabilities->mutable_step_times();
    to->set_layer_step_seconds(times.layer_step_s);
    to->set_layer_token_seconds(times.layer_token_s);
    to->set_layer_context_seconds(times.layer_context_s);
    to->set_head_step_seconds(times.head_step_s);
    to->set_head_row_seconds(times.head_row_s);
  }
  capabilities->set_link_bytes_per_second(registration.link_bytes_per_second);
  out->set_slowdown(worker.slowdown);
  out->set_is_slow(worker.slow);
  out->set_why_idle(from.why_idle);
  capabilities->set_can_fetch_weights(registration.can_fetch_weights);
  SetDuration(from.silence, out->mutable_time_since_heartbeat());
  out->set_finished_step_count(worker.finished_step_count);
  if (from.stage >= 0) {
    out->set_pipeline_id(from.pipeline_id);
    out->set_stage_index(from.stage);
  }
  if (worker.lost || worker.unreachable) {
    out->set_state(v1::WORKER_STATE_LOST);
  } else if (worker.hung) {
    out->set_state(v1::WORKER_STATE_HUNG);
  } else if (worker.MustGo()) {
    out->set_state(v1::WORKER_STATE_DRAINING);
  } else if (from.stage < 0) {
    out->set_state(v1::WORKER_STATE_IDLE);
  } else {
    out->set_state(from.phase == Engine::Phase::kReady
                       ? v1::WORKER_STATE_READY
                       : v1::WORKER_STATE_LOADING);
  }
}

void ToProto(const Engine::PipelineStatus& from,
             const Engine::Snapshot& snapshot, v1::PipelineForecast* out) {
  const CutForecast& forecast = from.forecast;
  out->set_pipeline_id(from.id);
  out->set_wanted_count(snapshot.max_sequences);
  out->set_running_count(forecast.n_running);
  out->set_context_token_count(snapshot.context_tokens);
  out->set_cycle_seconds(forecast.cycle_s);
  out->set_tokens_per_second(forecast.tokens_per_second);
  out->set_slowest_stage_index(forecast.slowest_stage);
  out->set_is_round_bound(forecast.is_round_bound);
  out->set_recut_gain(from.recut_gain);
  for (size_t i = 0; i < from.stages.size(); ++i) {
    const Engine::StageStatus& stage = from.stages[i];
    v1::StageForecast* const to = out->add_stages();
    to->set_worker_id(stage.placed.worker_id);
    to->set_layer_begin(stage.placed.range.layer_begin);
    to->set_layer_end(stage.placed.range.layer_end);
    if (i < forecast.stage_s.size()) {
      to->set_stage_seconds(forecast.stage_s[i]);
      to->set_link_seconds(forecast.link_s[i]);
    }
    to->set_weight_bytes(stage.info.weight_bytes);
    to->set_kv_bytes(stage.info.kv_bytes);
    for (const Engine::WorkerStatus& worker : snapshot.workers) {
      const WorkerRegistration& r = worker.worker.registration;
      if (r.worker_id != stage.placed.worker_id) continue;
      to->set_is_measured(r.step_times.is_known());
      to->set_memory_bytes(UsableMemory(r.memory_bytes));
    }
    if (static_cast<int>(i) == from.fullest_stage) {
      out->set_fullest_worker_id(stage.placed.worker_id);
    }
  }
}

}  // namespace

grpc::ServerUnaryReactor* ClusterServiceImpl::RegisterWorker(
    grpc::CallbackServerContext* call, const v1::RegisterWorkerRequest* request,
    v1::RegisterWorkerResponse* response) {
  grpc::ServerUnaryReactor* reactor = call->DefaultReactor();
  absl::Status allowed =
      context_.credentials->CheckCaller(*call, {kWorkerName});
  if (allowed.ok())
    allowed = CheckChecksum("a worker's introduction", *request);
  if (!allowed.ok()) {
    reactor->Finish(ToGrpcStatus(allowed));
    return reactor;
  }
  context_.workers->RegisterWorker(
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
  absl::Status allowed =
      context_.credentials->CheckCaller(*call, {kWorkerName});
  if (allowed.ok()) allowed = CheckChecksum("a heartbeat", *request);
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
  heartbeat.slowdown = request->slowdown();
  heartbeat.round_trip = absl::Seconds(request->round_trip().seconds()) +
                         absl::Nanoseconds(request->round_trip().nanos());
  context_.workers->SendHeartbeat(
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
  context_.models->Inspect(
      [reactor, response](const ModelRegistry::Snapshots& snapshots) {
        // Each in one model's list, or for a moment in none; in two only while
        // the one that it has left has not noticed.
        std::map<std::string, const Engine::WorkerStatus*> by_id;
        for (const auto& [model, snapshot] : snapshots) {
          for (const Engine::WorkerStatus& worker : snapshot.workers) {
            const Engine::WorkerStatus*& place =
                by_id[worker.worker.registration.worker_id];
            if (place == nullptr || worker.silence < place->silence) {
              place = &worker;
            }
          }
          for (const Engine::PipelineStatus& pipeline : snapshot.pipelines) {
            ToProto(pipeline, snapshot, response->add_pipelines());
          }
        }
        for (const auto& [id, worker] : by_id) {
          ToProto(*worker, response->add_workers());
        }
        reactor->Finish(grpc::Status::OK);
      });
  return reactor;
}

}  // namespace tern
