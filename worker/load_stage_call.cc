#include "worker/load_stage_call.h"

#include <utility>

#include "kernels/attention.h"
#include "util/grpc_status.h"
#include "util/message_checksum.h"

namespace tern {
namespace {

constexpr absl::Duration kProgressInterval = absl::Milliseconds(100);

StageRequest FromProto(const v1::LoadStageRequest& r) {
  return {r.model(),
          r.pipeline_id(),
          r.epoch(),
          r.model_fingerprint(),
          r.layer_begin(),
          r.layer_end(),
          r.stage_index(),
          r.stage_count(),
          r.numerics_id(),
          r.kv_block_count(),
          r.max_step_tokens(),
          r.next_stage_address(),
          r.first_stage_address(),
          r.content_id(),
          {r.weight_peer_addresses().begin(), r.weight_peer_addresses().end()},
          r.kept_epoch(),
          r.keeps_boundary()};
}

}  // namespace

LoadStageCall* LoadStageCall::Start(const absl::Status& allowed,
                                    const v1::LoadStageRequest& request,
                                    StageBackend* host, Clock* clock) {
  const std::shared_ptr<LoadStageCall> call(new LoadStageCall(clock));
  {
    absl::MutexLock lock(&call->mu_);
    call->self_ = call;
  }
  absl::Status status = allowed;
  if (status.ok()) status = CheckChecksum("LoadStage's request", request);
  if (status.ok()) status = host->Load(FromProto(request), call);
  if (!status.ok()) call->OnLoaded(std::move(status));
  return call.get();
}

void LoadStageCall::OnProgress(int64_t loaded_bytes, int64_t total_bytes) {
  const absl::Time now = clock_->Now();
  absl::MutexLock lock(&mu_);
  if (now - last_progress_ < kProgressInterval) return;
  last_progress_ = now;
  next_.set_loaded_bytes(loaded_bytes);
  next_.set_total_bytes(total_bytes);
  has_next_ = true;
  Advance();
}

void LoadStageCall::OnLoaded(absl::StatusOr<LoadedStage> loaded) {
  absl::MutexLock lock(&mu_);
  ending_ = true;
  has_next_ = loaded.ok();
  if (loaded.ok()) {
    next_.set_loaded_bytes(loaded->weight_bytes);
    next_.set_total_bytes(loaded->weight_bytes);
    v1::StageInfo* const info = next_.mutable_loaded();
    info->set_weight_bytes(loaded->weight_bytes);
    info->set_kv_bytes(loaded->kv_bytes);
    info->set_kv_block_size(kKvBlockSize);
    info->set_kept_kv(loaded->kept_kv);
  } else {
    end_ = ToGrpcStatus(loaded.status());
  }
  Advance();
}

bool LoadStageCall::IsCancelled() {
  absl::MutexLock lock(&mu_);
  return cancelled_;
}

// gRPC never calls back from inside of StartWrite() or Finish(), so the lock
// may be held over them.
void LoadStageCall::Advance() {
  if (writing_ || finished_ || done_) return;
  if (has_next_) {
    has_next_ = false;
    writing_ = true;
    written_ = next_;
    StartWrite(&written_);
  } else if (ending_) {
    finished_ = true;
    Finish(end_);
  }
}

void LoadStageCall::OnWriteDone(bool ok) {
  absl::MutexLock lock(&mu_);
  writing_ = false;
  // Nobody reads any more: there is nothing to say but the end.
  if (!ok) has_next_ = false;
  Advance();
}

void LoadStageCall::OnCancel() {
  absl::MutexLock lock(&mu_);
  cancelled_ = true;
}

void LoadStageCall::OnDone() {
  std::shared_ptr<LoadStageCall> self;
  absl::MutexLock lock(&mu_);
  done_ = true;
  self = std::move(self_);
}

}  // namespace tern
