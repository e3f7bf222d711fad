#include "coordinator/testing/fake_worker.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "coordinator/os_random.h"
#include "coordinator/step_plan.h"
#include "grpcpp/client_context.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/security/credentials.h"
#include "grpcpp/security/server_credentials.h"
#include "grpcpp/server_builder.h"
#include "proto/tern/v1/cluster.grpc.pb.h"
#include "util/grpc_status.h"
#include "util/logging.h"

namespace tern {
namespace {

constexpr int kBlockSize = 16;
constexpr absl::Duration kPatience = absl::Seconds(30);

StepPlan FromProto(const v1::StepPlan& in) {
  StepPlan plan;
  plan.step_id = in.step_id();
  plan.released_run_ids.assign(in.released_sequence_ids().begin(),
                               in.released_sequence_ids().end());
  for (const v1::SequenceSetup& from : in.new_sequences()) {
    SequenceSetup setup;
    setup.run_id = from.sequence_id();
    setup.sampler.seed = from.sampler().seed();
    plan.new_sequences.push_back(std::move(setup));
  }
  for (const v1::StepRow& from : in.rows()) {
    StepRow row;
    row.run_id = from.sequence_id();
    row.position = from.position();
    row.tokens.assign(from.tokens().ids().begin(), from.tokens().ids().end());
    row.sampled_in_step_id = from.sampled_in_step_id();
    row.new_block_ids.assign(from.new_block_ids().begin(),
                             from.new_block_ids().end());
    row.samples = from.samples();
    row.n_taken_over_blocks = from.taken_over_block_count();
    row.taken_over_tokens.assign(from.taken_over_token_ids().begin(),
                                 from.taken_over_token_ids().end());
    plan.rows.push_back(std::move(row));
  }
  return plan;
}

}  // namespace

FakeWorker::FakeWorker(std::string worker_id, std::string model, int vocab_size)
    : worker_id_(std::move(worker_id)),
      model_(std::move(model)),
      vocab_size_(vocab_size) {
  grpc::ServerBuilder builder;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(),
                           &port_);
  builder.RegisterService(this);
  server_ = builder.BuildAndStart();
  CHECK(server_ != nullptr);
}

FakeWorker::~FakeWorker() {
  Release();
  server_->Shutdown(absl::ToChronoTime(absl::Now()));
}

absl::Status FakeWorker::Register(const std::string& address) {
  auto stub = v1::ClusterService::NewStub(
      grpc::CreateChannel(address, grpc::InsecureChannelCredentials()));
  v1::RegisterWorkerRequest request;
  request.set_worker_id(worker_id_);
  request.set_incarnation(static_cast<int64_t>(OsRandom() >> 1) + 1);
  request.set_protocol_version(1);
  request.set_address(this->address());
  request.mutable_capabilities()->set_numerics_class("cpu-1");
  request.mutable_capabilities()->set_memory_bytes(int64_t{1} << 30);
  request.mutable_capabilities()->set_thread_count(1);
  request.mutable_capabilities()->set_repeat_max_limit(1);
  request.mutable_capabilities()->set_supports_step_token_source(true);
  request.mutable_capabilities()->add_models(model_);
  grpc::ClientContext context;
  v1::RegisterWorkerResponse response;
  return FromGrpcStatus(stub->RegisterWorker(&context, request, &response));
}

void FakeWorker::Hold() {
  absl::MutexLock lock(&mu_);
  held_ = true;
}

void FakeWorker::Release() {
  absl::MutexLock lock(&mu_);
  held_ = false;
}

void FakeWorker::BreakStream() {
  absl::MutexLock lock(&mu_);
  const auto streaming = [this]() ABSL_SHARED_LOCKS_REQUIRED(mu_) {
    return stream_context_ != nullptr;
  };
  CHECK(mu_.AwaitWithTimeout(absl::Condition(&streaming), kPatience));
  breaking_ = true;
  stream_context_->TryCancel();
}

void FakeWorker::FailLoading(absl::Status status) {
  absl::MutexLock lock(&mu_);
  load_status_ = std::move(status);
}

bool FakeWorker::AwaitSequences(int n) {
  absl::MutexLock lock(&mu_);
  const auto so = [this, n]() ABSL_SHARED_LOCKS_REQUIRED(mu_) {
    return (toy_ == nullptr ? 0 : toy_->n_sequences()) == n;
  };
  return mu_.AwaitWithTimeout(absl::Condition(&so), kPatience);
}

bool FakeWorker::AwaitAnySequence() {
  absl::MutexLock lock(&mu_);
  const auto so = [this]() ABSL_SHARED_LOCKS_REQUIRED(mu_) {
    return toy_ != nullptr && toy_->n_sequences() > 0;
  };
  return mu_.AwaitWithTimeout(absl::Condition(&so), kPatience);
}

bool FakeWorker::AwaitLoads(int n) {
  absl::MutexLock lock(&mu_);
  const auto so = [this, n]()
                      ABSL_SHARED_LOCKS_REQUIRED(mu_) { return n_loads_ >= n; };
  return mu_.AwaitWithTimeout(absl::Condition(&so), kPatience);
}

int FakeWorker::n_blocks_in_use() {
  absl::MutexLock lock(&mu_);
  return toy_ == nullptr ? 0 : toy_->n_blocks_in_use();
}

v1::LoadStageRequest FakeWorker::stage() {
  absl::MutexLock lock(&mu_);
  return stage_;
}

int FakeWorker::n_rows_ahead() {
  absl::MutexLock lock(&mu_);
  return n_rows_ahead_;
}

std::string FakeWorker::address() const {
  return absl::StrCat("127.0.0.1:", port_);
}

std::string FakeWorker::broken_rule() {
  absl::MutexLock lock(&mu_);
  return broken_rule_;
}

grpc::Status FakeWorker::LoadStage(
    grpc::ServerContext* context, const v1::LoadStageRequest* request,
    grpc::ServerWriter<v1::LoadStageResponse>* writer) {
  {
    absl::MutexLock lock(&mu_);
    if (!load_status_.ok()) return ToGrpcStatus(load_status_);
    stage_ = *request;
    ++n_loads_;
  }
  v1::LoadStageResponse response;
  response.set_loaded_bytes(50);
  response.set_total_bytes(100);
  writer->Write(response);
  response.set_loaded_bytes(100);
  response.mutable_loaded()->set_weight_bytes(100);
  response.mutable_loaded()->set_kv_bytes(1000);
  response.mutable_loaded()->set_kv_block_size(kBlockSize);
  writer->Write(response);
  return grpc::Status::OK;
}

grpc::Status FakeWorker::ExecuteSteps(
    grpc::ServerContext* context,
    grpc::ServerReaderWriter<v1::StepResult, v1::StepPlan>* stream) {
  bool is_last;
  {
    absl::MutexLock lock(&mu_);
    toy_ = std::make_unique<ToyWorker>(stage_.kv_block_count(), kBlockSize,
                                       stage_.max_step_tokens(), vocab_size_);
    is_last = stage_.stage_index() + 1 == stage_.stage_count();
    stream_context_ = context;
    breaking_ = false;
  }
  grpc::Status status;
  v1::StepPlan plan;
  while (status.ok() && stream->Read(&plan)) {
    v1::StepResult out;
    {
      absl::MutexLock lock(&mu_);
      for (const v1::StepRow& row : plan.rows()) {
        if (row.sampled_in_step_id() > 0) ++n_rows_ahead_;
      }
      StepResult result;
      const absl::Status ran = toy_->Run(FromProto(plan), &result);
      if (!ran.ok()) {
        broken_rule_ = std::string(ran.message());
        status = ToGrpcStatus(ran);
        break;
      }
      out.set_model(plan.model());
      out.set_pipeline_id(plan.pipeline_id());
      out.set_epoch(plan.epoch());
      out.set_step_id(plan.step_id());
      for (const SampledToken& sampled : result.sampled) {
        if (!is_last) break;
        v1::SampledToken* to = out.add_sampled();
        to->set_sequence_id(sampled.run_id);
        to->set_position(sampled.position);
        to->set_token_id(sampled.token_id);
      }
      const auto free = [this]() ABSL_SHARED_LOCKS_REQUIRED(mu_) {
        return !held_ || breaking_;
      };
      mu_.Await(absl::Condition(&free));
      if (breaking_) break;
    }
    if (!stream->Write(out)) break;
  }
  absl::MutexLock lock(&mu_);
  // A later stream may be there already.
  if (stream_context_ == context) {
    stream_context_ = nullptr;
    toy_.reset();
  }
  if (breaking_) {
    return grpc::Status(grpc::StatusCode::UNAVAILABLE, "the stream broke");
  }
  return status;
}

}  // namespace tern
