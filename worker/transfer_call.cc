#include "worker/transfer_call.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/types/optional.h"
#include "absl/types/span.h"
#include "proto/tern/v1/tensor.pb.h"
#include "util/grpc_status.h"
#include "util/message_checksum.h"
#include "util/status_macros.h"
#include "worker/step.h"

namespace tern {

absl::StatusOr<std::shared_ptr<HiddenStatesInbox>>
HiddenStatesTransfer::InboxOf(const Inboxes& inboxes) {
  if (inboxes.hidden != nullptr) return inboxes.hidden;
  return absl::FailedPreconditionError(
      "this worker has the first stage, which takes no hidden states");
}

// Slices have a checksum of their own, and the inbox holds all else against the
// plan.
absl::Status HiddenStatesTransfer::Check(Request* request) {
  return absl::OkStatus();
}

absl::StatusOr<bool> HiddenStatesTransfer::Offer(
    const Request& request, Inbox* inbox, std::function<void()> on_room) {
  const v1::TensorSlice& tensor = request.slice();
  if (tensor.data_type() != v1::DATA_TYPE_FLOAT32 || tensor.shape_size() != 2) {
    return absl::DataLossError(absl::StrCat(
        "the hidden states of step ", request.step_id(), " have data type ",
        static_cast<int>(tensor.data_type()), " and ", tensor.shape_size(),
        " dimensions; they must be float32 [tokens, hidden_size]"));
  }
  HiddenStatesSlice slice;
  slice.step_id = request.step_id();
  slice.n_tokens = tensor.shape(0);
  slice.hidden_size = tensor.shape(1);
  slice.offset_bytes = tensor.offset_bytes();
  slice.total_bytes = tensor.total_bytes();
  slice.crc32c = tensor.crc32c();
  slice.data = absl::MakeConstSpan(tensor.data().data(), tensor.data().size());
  return inbox->Offer(slice, std::move(on_room));
}

absl::StatusOr<std::shared_ptr<SampledTokensInbox>>
SampledTokensTransfer::InboxOf(const Inboxes& inboxes) {
  if (inboxes.tokens != nullptr) return inboxes.tokens;
  return absl::FailedPreconditionError(
      "this worker does not have the first of several stages, which alone "
      "takes sampled tokens");
}

absl::Status SampledTokensTransfer::Check(Request* request) {
  return TakeChecksum("sampled tokens", request);
}

absl::StatusOr<bool> SampledTokensTransfer::Offer(
    const Request& request, Inbox* inbox, std::function<void()> on_room) {
  StepTokens step{request.step_id(), {}};
  step.tokens.reserve(request.tokens_size());
  for (const v1::SequenceToken& token : request.tokens()) {
    step.tokens.push_back({token.sequence_id(), token.token_id()});
  }
  return inbox->Offer(std::move(step), std::move(on_room));
}

template <typename Transfer>
TransferCall<Transfer>* TransferCall<Transfer>::Start(
    const absl::Status& allowed, Response* response, StageBackend* host) {
  const std::shared_ptr<TransferCall> call(new TransferCall(response, host));
  {
    absl::MutexLock lock(&call->mu_);
    call->self_ = call;
  }
  if (allowed.ok()) {
    call->ReadNext();
  } else {
    call->End(allowed);
  }
  return call.get();
}

template <typename Transfer>
void TransferCall<Transfer>::OnReadDone(bool ok) {
  if (ok) {
    const absl::Status intact = Transfer::Check(&request_);
    if (intact.ok()) {
      Deliver();
    } else {
      End(intact);
    }
  } else {
    if (inbox_ != nullptr) Transfer::SetCount(inbox_->step_count(), response_);
    End(absl::OkStatus());
  }
}

template <typename Transfer>
void TransferCall<Transfer>::Deliver() {
  const absl::StatusOr<bool> taken = Offer();
  if (!taken.ok()) {
    End(taken.status());
  } else if (*taken) {
    ReadNext();
  }
}

template <typename Transfer>
absl::StatusOr<bool> TransferCall<Transfer>::Offer() {
  if (inbox_ == nullptr || request_.epoch() != epoch_) {
    ASSIGN_OR_RETURN(const absl::optional<Inboxes> inboxes,
                     host_->InboxesOf(request_.model(), request_.pipeline_id(),
                                      request_.epoch()));
    // Stale: dropped.
    if (!inboxes.has_value()) return true;
    ASSIGN_OR_RETURN(auto inbox, Transfer::InboxOf(*inboxes));
    RETURN_IF_ERROR(inbox->AttachSender());
    inbox_ = std::move(inbox);
    epoch_ = request_.epoch();
  }
  std::shared_ptr<TransferCall> self;
  {
    absl::MutexLock lock(&mu_);
    self = self_;
  }
  // The inbox keeps the call alive as long as it holds the message back.
  return Transfer::Offer(request_, inbox_.get(), [self] { self->Deliver(); });
}

template <typename Transfer>
void TransferCall<Transfer>::ReadNext() {
  absl::MutexLock lock(&mu_);
  if (!finished_) this->StartRead(&request_);
}

template <typename Transfer>
void TransferCall<Transfer>::End(const absl::Status& status) {
  if (inbox_ != nullptr) {
    if (status.ok()) {
      inbox_->EndOfStream();
    } else {
      // The runner must not wait for what will not come.
      inbox_->Close(status);
    }
  }
  absl::MutexLock lock(&mu_);
  if (finished_) return;
  finished_ = true;
  this->Finish(ToGrpcStatus(status));
}

template <typename Transfer>
void TransferCall<Transfer>::OnDone() {
  std::shared_ptr<TransferCall> self;
  absl::MutexLock lock(&mu_);
  finished_ = true;
  self = std::move(self_);
}

template class TransferCall<HiddenStatesTransfer>;
template class TransferCall<SampledTokensTransfer>;

}  // namespace tern
