#include "worker/registration.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "absl/time/clock.h"
#include "google/protobuf/duration.pb.h"
#include "proto/tern/v1/cluster.pb.h"
#include "util/grpc_status.h"
#include "util/logging.h"
#include "util/message_checksum.h"
#include "util/status_macros.h"

namespace tern {
namespace {

// A coordinator that asks for more or less than this is taken at the limit.
constexpr absl::Duration kHeartbeatMin = absl::Milliseconds(10);
constexpr absl::Duration kHeartbeatMax = absl::Seconds(60);
constexpr absl::Duration kHeartbeatWhileDraining = absl::Milliseconds(50);

absl::Duration FromProto(const google::protobuf::Duration& d) {
  return absl::Seconds(d.seconds()) + absl::Nanoseconds(d.nanos());
}

v1::RegisterWorkerRequest MakeRequest(const WorkerDescription& d) {
  v1::RegisterWorkerRequest request;
  request.set_worker_id(d.worker_id);
  request.set_incarnation(d.incarnation);
  request.set_protocol_version(kProtocolVersion);
  request.set_address(d.address);
  v1::WorkerCapabilities* const c = request.mutable_capabilities();
  c->set_numerics_class(d.numerics_class);
  c->set_memory_bytes(d.memory_bytes);
  c->set_thread_count(d.thread_count);
  c->set_kernel_isa(d.kernel_isa);
  c->set_device(d.device);
  c->set_thread_placement(d.thread_placement);
  for (const std::string& model : d.models) c->add_models(model);
  c->set_supports_step_token_source(true);
  c->set_repeat_max_limit(1);
  c->mutable_packed_blocks()->set_column_count(d.packed_blocks.columns);
  c->mutable_packed_blocks()->set_byte_count(d.packed_blocks.bytes);
  c->set_can_fetch_weights(d.can_fetch_weights);
  if (d.step_times.is_known()) {
    v1::StepTimes* const times = c->mutable_step_times();
    times->set_layer_step_seconds(d.step_times.layer_step_s);
    times->set_layer_token_seconds(d.step_times.layer_token_s);
    times->set_layer_context_seconds(d.step_times.layer_context_s);
    times->set_head_step_seconds(d.step_times.head_step_s);
    times->set_head_row_seconds(d.step_times.head_row_s);
  }
  c->set_link_bytes_per_second(d.link_bytes_per_second);
  SetChecksum(&request);
  return request;
}

// Whether asking again soon is pointless. ALREADY_EXISTS is no refusal: mostly
// it is our own former self, whose end the coordinator has not noticed yet.
bool IsRefusal(const absl::Status& status) {
  return absl::IsFailedPrecondition(status) ||
         absl::IsPermissionDenied(status) || absl::IsUnauthenticated(status) ||
         absl::IsInvalidArgument(status);
}

// Whether nobody has answered, as far as is known: an answer that was damaged
// is none, and gRPC says INTERNAL of what is no message.
bool IsTransient(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status) ||
         absl::IsDataLoss(status) || absl::IsInternal(status);
}

}  // namespace

Registration::Registration(
    const Options& options, const WorkerDescription& description,
    const std::vector<std::shared_ptr<grpc::Channel>>& channels,
    std::function<WorkDone()> work_done,
    std::function<void(bool)> on_registered)
    : options_(options),
      description_(description),
      work_done_(std::move(work_done)),
      on_registered_(std::move(on_registered)) {
  for (const auto& channel : channels) {
    stubs_.push_back(v1::ClusterService::NewStub(channel));
  }
  CHECK(!stubs_.empty());
  thread_ = std::thread([this] { Main(); });
}

Registration::~Registration() {
  {
    absl::MutexLock lock(&mu_);
    stopping_ = true;
    if (call_ != nullptr) call_->TryCancel();
  }
  thread_.join();
}

bool Registration::Drain(absl::Duration timeout) {
  absl::MutexLock lock(&mu_);
  draining_ = true;
  return mu_.AwaitWithTimeout(absl::Condition(&released_), timeout);
}

bool Registration::IsDraining() {
  absl::MutexLock lock(&mu_);
  return draining_;
}

void Registration::SetReleased() {
  absl::MutexLock lock(&mu_);
  released_ = true;
}

void Registration::Main() {
  absl::Duration retry = options_.retry_min;
  absl::Status last_said;
  while (Wait(absl::ZeroDuration())) {
    // Not known to anyone.
    if (IsDraining()) SetReleased();
    Lease lease;
    absl::Status status = Register(&lease);
    if (status.ok()) {
      LOG(INFO) << "event=registered worker=" << description_.worker_id
                << " lease_epoch=" << lease.epoch;
      retry = options_.retry_min;
      last_said = absl::OkStatus();
      on_registered_(true);
      status = KeepAlive(lease);
      on_registered_(false);
      if (IsDraining()) SetReleased();
      if (absl::IsNotFound(status) || absl::IsAborted(status)) {
        // It lives and does not know us: it does want to.
        LOG(INFO) << "event=lease_lost worker=" << description_.worker_id
                  << " status=\"" << status.ToString() << "\"";
        if (!Wait(options_.retry_min)) return;
        continue;
      }
    }
    if (!Wait(absl::ZeroDuration())) return;
    // Once for each thing there is to say, not with each attempt.
    if (status != last_said) {
      LOG(WARNING) << "event=registration_failed worker="
                   << description_.worker_id << " status=\""
                   << status.ToString() << "\"; trying again";
      last_said = status;
    }
    if (IsTransient(status) && TryNext()) continue;
    if (!Wait(IsRefusal(status) ? options_.refused_retry : retry)) return;
    retry = std::min(2 * retry, options_.retry_max);
  }
}

bool Registration::TryNext() {
  current_ = (current_ + 1) % stubs_.size();
  return current_ != 0;
}

absl::Status Registration::Register(Lease* lease) {
  grpc::ClientContext context;
  if (!BeginCall(&context)) return absl::CancelledError("stopping");
  v1::RegisterWorkerResponse response;
  const grpc::Status status =
      stub().RegisterWorker(&context, MakeRequest(description_), &response);
  EndCall();
  RETURN_IF_ERROR(FromGrpcStatus(status));
  lease->epoch = response.lease_epoch();
  lease->heartbeat_interval = std::min(
      std::max(FromProto(response.heartbeat_interval()), kHeartbeatMin),
      kHeartbeatMax);
  return absl::OkStatus();
}

absl::Status Registration::KeepAlive(const Lease& lease) {
  // One heartbeat that is lost is no lost coordinator: the lease outlives it.
  int failures = 0;
  while (Wait(IsDraining()
                  ? std::min(kHeartbeatWhileDraining, lease.heartbeat_interval)
                  : lease.heartbeat_interval)) {
    const absl::Status status = SendHeartbeat(lease);
    if (status.ok()) {
      failures = 0;
      continue;
    }
    if (!IsTransient(status) || ++failures >= 3) return status;
  }
  return absl::CancelledError("stopping");
}

absl::Status Registration::SendHeartbeat(const Lease& lease) {
  grpc::ClientContext context;
  if (!BeginCall(&context)) return absl::CancelledError("stopping");
  v1::SendHeartbeatRequest request;
  request.set_worker_id(description_.worker_id);
  request.set_lease_epoch(lease.epoch);
  const WorkDone work_done = work_done_();
  request.set_finished_step_count(work_done.finished_step_count);
  request.set_progress(work_done.progress);
  request.set_is_draining(IsDraining());
  request.set_slowdown(work_done.slowdown);
  if (round_trip_ < absl::InfiniteDuration()) {
    request.mutable_round_trip()->set_seconds(
        absl::ToInt64Seconds(round_trip_));
    request.mutable_round_trip()->set_nanos(static_cast<int32_t>(
        absl::ToInt64Nanoseconds(round_trip_ % absl::Seconds(1))));
  }
  SetChecksum(&request);
  v1::SendHeartbeatResponse response;
  const absl::Time begin = absl::Now();
  const grpc::Status status =
      stub().SendHeartbeat(&context, request, &response);
  EndCall();
  if (status.ok()) {
    round_trip_ = std::min(round_trip_, absl::Now() - begin);
    if (response.released()) SetReleased();
  }
  return FromGrpcStatus(status);
}

bool Registration::Wait(absl::Duration duration) {
  absl::MutexLock lock(&mu_);
  // A wish to leave is told at once.
  const auto is_over = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return stopping_ || (draining_ && !drain_begun_);
  };
  mu_.AwaitWithTimeout(absl::Condition(&is_over), duration);
  if (draining_) drain_begun_ = true;
  return !stopping_;
}

bool Registration::BeginCall(grpc::ClientContext* context) {
  context->set_deadline(
      absl::ToChronoTime(absl::Now() + options_.call_timeout));
  absl::MutexLock lock(&mu_);
  if (stopping_) return false;
  call_ = context;
  return true;
}

void Registration::EndCall() {
  absl::MutexLock lock(&mu_);
  call_ = nullptr;
}

}  // namespace tern
