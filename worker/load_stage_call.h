#ifndef WORKER_LOAD_STAGE_CALL_H_
#define WORKER_LOAD_STAGE_CALL_H_

#include <cstdint>
#include <memory>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "grpcpp/support/server_callback.h"
#include "grpcpp/support/status.h"
#include "proto/tern/v1/worker.pb.h"
#include "util/clock.h"
#include "worker/stage_backend.h"

namespace tern {

// One LoadStage call: streams the loader's progress, ten times a second at
// most. Lives until both gRPC and the loader are done with it.
class LoadStageCall : public grpc::ServerWriteReactor<v1::LoadStageResponse>,
                      public LoadObserver {
 public:
  // `allowed`: whether the caller may call; its error is the answer.
  static LoadStageCall* Start(const absl::Status& allowed,
                              const v1::LoadStageRequest& request,
                              StageBackend* host, Clock* clock);

  void OnProgress(int64_t loaded_bytes, int64_t total_bytes) override;
  void OnLoaded(absl::StatusOr<LoadedStage> loaded) override;
  bool IsCancelled() override;

 private:
  explicit LoadStageCall(Clock* clock) : clock_(clock) {}

  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

  // Begins whatever is due.
  void Advance() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  Clock* const clock_;

  absl::Mutex mu_;
  std::shared_ptr<LoadStageCall> self_ ABSL_GUARDED_BY(mu_);
  bool cancelled_ ABSL_GUARDED_BY(mu_) = false;
  bool done_ ABSL_GUARDED_BY(mu_) = false;
  absl::Time last_progress_ ABSL_GUARDED_BY(mu_) = absl::InfinitePast();
  bool writing_ ABSL_GUARDED_BY(mu_) = false;
  v1::LoadStageResponse written_ ABSL_GUARDED_BY(mu_);
  // To be written next; what was not is overwritten.
  bool has_next_ ABSL_GUARDED_BY(mu_) = false;
  v1::LoadStageResponse next_ ABSL_GUARDED_BY(mu_);
  bool ending_ ABSL_GUARDED_BY(mu_) = false;
  bool finished_ ABSL_GUARDED_BY(mu_) = false;
  grpc::Status end_ ABSL_GUARDED_BY(mu_);
};

}  // namespace tern

#endif  // WORKER_LOAD_STAGE_CALL_H_
