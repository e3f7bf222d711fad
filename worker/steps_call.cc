#include "worker/steps_call.h"

#include <utility>

#include "absl/status/statusor.h"
#include "util/grpc_status.h"
#include "util/message_checksum.h"
#include "util/status_macros.h"
#include "worker/step_proto.h"

namespace tern {

StepsCall* StepsCall::Start(const absl::Status& allowed, StageBackend* host) {
  const std::shared_ptr<StepsCall> call(new StepsCall(host));
  // Without a stage there is nothing to wait for; the first plan asks again.
  const absl::Status status = allowed.ok() ? host->plans().status() : allowed;
  {
    absl::MutexLock lock(&call->mu_);
    call->self_ = call;
    if (status.ok()) call->MaybeRead();
  }
  if (!status.ok()) call->End(status);
  return call.get();
}

void StepsCall::OnReadDone(bool ok) {
  std::shared_ptr<StepMailbox> mailbox;
  {
    absl::MutexLock lock(&mu_);
    reads_ended_ = !ok;
    if (end_.has_value()) return;
    mailbox = mailbox_;
  }
  if (!ok) {
    // The runner ends the call when it has run what was sent.
    if (mailbox != nullptr) {
      mailbox->End();
    } else {
      End(absl::OkStatus());
    }
    return;
  }
  const absl::Status status = TakePlan();
  if (!status.ok()) {
    End(status);
    absl::MutexLock lock(&mu_);
    mailbox = mailbox_;
  }
  // Not under the lock: it may call OnEnd().
  if (!status.ok() && mailbox != nullptr) mailbox->Abort(status);
}

absl::Status StepsCall::TakePlan() {
  RETURN_IF_ERROR(TakeChecksum("a plan", &plan_));
  if (!plans_.has_value()) {
    ASSIGN_OR_RETURN(StageBackend::Plans plans, host_->plans());
    if (plan_.epoch() < plans.limits.epoch) {
      return absl::AbortedError("the epoch of the stream's first plan is over");
    }
    if (plan_.epoch() == plans.limits.epoch) {
      std::shared_ptr<StepSink> self;
      {
        absl::MutexLock lock(&mu_);
        self = self_;
      }
      RETURN_IF_ERROR(plans.mailbox->Attach(std::move(self)));
      absl::MutexLock lock(&mu_);
      mailbox_ = plans.mailbox;
    }
    // Those of a newer epoch are refused below.
    plans_ = std::move(plans);
  }
  const bool is_stale = plan_.epoch() < plans_->limits.epoch;
  if (!is_stale) {
    ASSIGN_OR_RETURN(StepPlan plan, ParseStepPlan(plan_, plans_->limits));
    {
      absl::MutexLock lock(&mu_);
      ++under_way_;
    }
    RETURN_IF_ERROR(plans_->mailbox->Push(std::move(plan)));
  }
  // Only now: a result that is written meanwhile would start the next read into
  // the plan at hand.
  absl::MutexLock lock(&mu_);
  reading_ = false;
  MaybeRead();
  return absl::OkStatus();
}

void StepsCall::OnResult(StepResult result) {
  v1::StepResult message = MakeStepResult(result, plans_->limits);
  absl::MutexLock lock(&mu_);
  results_.push_back(std::move(message));
  MaybeWrite();
}

void StepsCall::OnEnd(absl::Status status) { End(std::move(status)); }

void StepsCall::End(absl::Status status) {
  absl::MutexLock lock(&mu_);
  if (!end_.has_value()) end_ = std::move(status);
  MaybeWrite();
}

void StepsCall::OnWriteDone(bool ok) {
  absl::MutexLock lock(&mu_);
  writing_ = false;
  --under_way_;
  results_.pop_front();
  // Nobody reads any more; OnCancel() tells the runner.
  if (!ok) results_.clear();
  MaybeWrite();
  MaybeRead();
}

// gRPC never calls back from inside of StartRead(), StartWrite() or Finish(),
// so the lock may be held over them.
void StepsCall::MaybeRead() {
  if (reading_ || reads_ended_ || finished_ || end_.has_value() ||
      under_way_ >= StageBackend::kWaitingPlansMax) {
    return;
  }
  reading_ = true;
  StartRead(&plan_);
}

void StepsCall::MaybeWrite() {
  if (writing_ || finished_) return;
  if (!results_.empty()) {
    writing_ = true;
    StartWrite(&results_.front());
  } else if (end_.has_value()) {
    finished_ = true;
    Finish(ToGrpcStatus(*end_));
  }
}

void StepsCall::OnCancel() {
  std::shared_ptr<StepMailbox> mailbox;
  {
    absl::MutexLock lock(&mu_);
    mailbox = mailbox_;
  }
  const absl::Status status =
      absl::CancelledError("the coordinator's stream of plans is gone");
  if (mailbox != nullptr) {
    mailbox->Abort(status);
  } else {
    host_->OnCancelledWithoutPlans();
    End(status);
  }
}

void StepsCall::OnDone() {
  std::shared_ptr<StepsCall> self;
  absl::MutexLock lock(&mu_);
  finished_ = true;
  self = std::move(self_);
}

}  // namespace tern
