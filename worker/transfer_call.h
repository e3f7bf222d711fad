#ifndef WORKER_TRANSFER_CALL_H_
#define WORKER_TRANSFER_CALL_H_

#include <cstdint>
#include <memory>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "grpcpp/support/server_callback.h"
#include "proto/tern/v1/worker.pb.h"
#include "worker/hidden_states_inbox.h"
#include "worker/stage_backend.h"

namespace tern {

// One TransferHiddenStates call: carries slices to the inbox of their epoch. A
// full inbox stops the reading, and so the sender. Lives until gRPC and the
// inbox are done with it.
class TransferCall
    : public grpc::ServerReadReactor<v1::TransferHiddenStatesRequest> {
 public:
  // `allowed`: whether the caller may call; its error is the answer.
  static TransferCall* Start(const absl::Status& allowed,
                             v1::TransferHiddenStatesResponse* response,
                             StageBackend* host);

 private:
  TransferCall(v1::TransferHiddenStatesResponse* response, StageBackend* host)
      : response_(response), host_(host) {}

  void OnReadDone(bool ok) override;
  void OnDone() override;

  // Offers the slice just read, and reads on when it was taken.
  void Deliver();
  // True when the slice was taken or dropped, false when it must be offered
  // again.
  absl::StatusOr<bool> Offer();
  void ReadNext() ABSL_LOCKS_EXCLUDED(mu_);
  // Ends the call. The inbox hears of it.
  void End(const absl::Status& status) ABSL_LOCKS_EXCLUDED(mu_);

  v1::TransferHiddenStatesResponse* const response_;
  StageBackend* const host_;

  // Of the chain of reads and offers, one of which is under way at a time.
  v1::TransferHiddenStatesRequest slice_;
  std::shared_ptr<HiddenStatesInbox> inbox_;  // of the epoch below
  int64_t epoch_ = 0;

  absl::Mutex mu_;
  std::shared_ptr<TransferCall> self_ ABSL_GUARDED_BY(mu_);
  bool finished_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace tern

#endif  // WORKER_TRANSFER_CALL_H_
