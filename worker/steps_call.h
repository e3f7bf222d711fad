#ifndef WORKER_STEPS_CALL_H_
#define WORKER_STEPS_CALL_H_

#include <deque>
#include <memory>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/optional.h"
#include "grpcpp/support/server_callback.h"
#include "proto/tern/v1/worker.pb.h"
#include "worker/stage_backend.h"
#include "worker/step.h"
#include "worker/step_mailbox.h"

namespace tern {

// One ExecuteSteps call. The first plan says which epoch the stream is for.
//
// No more plans are read while the most are under way (read, and their results
// not yet written): a coordinator that does not read results is not served any
// further. Lives until both gRPC and the runner are done with it.
class StepsCall : public grpc::ServerBidiReactor<v1::StepPlan, v1::StepResult>,
                  public StepSink {
 public:
  // `allowed`: whether the caller may call; its error is the answer.
  static StepsCall* Start(const absl::Status& allowed, StageBackend* host);

  void OnResult(StepResult result) override;
  void OnEnd(absl::Status status) override;

 private:
  explicit StepsCall(StageBackend* host) : host_(host) {}

  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

  // Gives the plan just read to the runner, and reads the next. The first one
  // claims the stage's mailbox.
  absl::Status TakePlan() ABSL_LOCKS_EXCLUDED(mu_);
  // Ends the call after the results that wait.
  void End(absl::Status status) ABSL_LOCKS_EXCLUDED(mu_);
  void MaybeRead() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void MaybeWrite() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  StageBackend* const host_;

  // Of the chain of reads: set by the first plan.
  v1::StepPlan plan_;
  absl::optional<StageBackend::Plans> plans_;

  absl::Mutex mu_;
  std::shared_ptr<StepsCall> self_ ABSL_GUARDED_BY(mu_);
  std::shared_ptr<StepMailbox> mailbox_ ABSL_GUARDED_BY(mu_);
  int under_way_ ABSL_GUARDED_BY(mu_) = 0;  // plans read, results not written
  bool reading_ ABSL_GUARDED_BY(mu_) = false;  // or taking what was read
  bool reads_ended_ ABSL_GUARDED_BY(mu_) = false;
  bool writing_ ABSL_GUARDED_BY(mu_) = false;
  std::deque<v1::StepResult> results_ ABSL_GUARDED_BY(mu_);  // 1st in writing
  absl::optional<absl::Status> end_ ABSL_GUARDED_BY(mu_);
  bool finished_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace tern

#endif  // WORKER_STEPS_CALL_H_
