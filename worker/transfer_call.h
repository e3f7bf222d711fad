#ifndef WORKER_TRANSFER_CALL_H_
#define WORKER_TRANSFER_CALL_H_

#include <cstdint>
#include <functional>
#include <memory>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "grpcpp/support/server_callback.h"
#include "proto/tern/v1/worker.pb.h"
#include "worker/hidden_states_inbox.h"
#include "worker/sampled_tokens_inbox.h"
#include "worker/stage_backend.h"
#include "worker/stage_links.h"

namespace tern {

// What TransferHiddenStates carries, a slice at a time.
struct HiddenStatesTransfer {
  using Request = v1::TransferHiddenStatesRequest;
  using Response = v1::TransferHiddenStatesResponse;
  using Inbox = HiddenStatesInbox;

  // FAILED_PRECONDITION where a stage has none.
  static absl::StatusOr<std::shared_ptr<Inbox>> InboxOf(const Inboxes& inboxes);
  // Once for each message, before all else. DATA_LOSS when it was damaged.
  static absl::Status Check(Request* request);
  // True when the inbox took it, false when it must be offered again.
  static absl::StatusOr<bool> Offer(const Request& request, Inbox* inbox,
                                    std::function<void()> on_room);
  static void SetCount(int64_t n_steps, Response* response) {
    response->set_tensor_count(n_steps);
  }
};

// What TransferSampledTokens carries, a step at a time.
struct SampledTokensTransfer {
  using Request = v1::TransferSampledTokensRequest;
  using Response = v1::TransferSampledTokensResponse;
  using Inbox = SampledTokensInbox;

  // See HiddenStatesTransfer.
  static absl::StatusOr<std::shared_ptr<Inbox>> InboxOf(const Inboxes& inboxes);
  static absl::Status Check(Request* request);
  static absl::StatusOr<bool> Offer(const Request& request, Inbox* inbox,
                                    std::function<void()> on_room);
  static void SetCount(int64_t n_steps, Response* response) {
    response->set_step_count(n_steps);
  }
};

// One call of another stage: carries its messages to the inbox of their epoch.
// A full inbox stops the reading, and so the sender. Lives until gRPC and the
// inbox are done with it. `Transfer` is one of the above.
template <typename Transfer>
class TransferCall
    : public grpc::ServerReadReactor<typename Transfer::Request> {
 public:
  using Response = typename Transfer::Response;

  // `allowed`: whether the caller may call; its error is the answer.
  static TransferCall* Start(const absl::Status& allowed, Response* response,
                             StageBackend* host);

 private:
  TransferCall(Response* response, StageBackend* host)
      : response_(response), host_(host) {}

  void OnReadDone(bool ok) override;
  void OnDone() override;

  // Offers the message just read, and reads on when it was taken.
  void Deliver();
  // True when the message was taken or dropped, false when it must be offered
  // again.
  absl::StatusOr<bool> Offer();
  void ReadNext() ABSL_LOCKS_EXCLUDED(mu_);
  // Ends the call. The inbox hears of it.
  void End(const absl::Status& status) ABSL_LOCKS_EXCLUDED(mu_);

  Response* const response_;
  StageBackend* const host_;

  // Of the chain of reads and offers, one of which is under way at a time.
  typename Transfer::Request request_;
  std::shared_ptr<typename Transfer::Inbox> inbox_;  // of the epoch below
  int64_t epoch_ = 0;

  absl::Mutex mu_;
  std::shared_ptr<TransferCall> self_ ABSL_GUARDED_BY(mu_);
  bool finished_ ABSL_GUARDED_BY(mu_) = false;
};

extern template class TransferCall<HiddenStatesTransfer>;
extern template class TransferCall<SampledTokensTransfer>;

}  // namespace tern

#endif  // WORKER_TRANSFER_CALL_H_
