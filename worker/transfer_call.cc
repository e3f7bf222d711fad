#include "worker/transfer_call.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "proto/tern/v1/tensor.pb.h"
#include "util/grpc_status.h"
#include "util/status_macros.h"

namespace tern {

TransferCall* TransferCall::Start(const absl::Status& allowed,
                                  v1::TransferHiddenStatesResponse* response,
                                  StageBackend* host) {
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

void TransferCall::OnReadDone(bool ok) {
  if (ok) {
    Deliver();
  } else {
    if (inbox_ != nullptr) response_->set_tensor_count(inbox_->tensor_count());
    End(absl::OkStatus());
  }
}

void TransferCall::Deliver() {
  const absl::StatusOr<bool> taken = Offer();
  if (!taken.ok()) {
    End(taken.status());
  } else if (*taken) {
    ReadNext();
  }
}

absl::StatusOr<bool> TransferCall::Offer() {
  if (inbox_ == nullptr || slice_.epoch() != epoch_) {
    ASSIGN_OR_RETURN(
        std::shared_ptr<HiddenStatesInbox> inbox,
        host_->InboxOf(slice_.model(), slice_.pipeline_id(), slice_.epoch()));
    // Stale: dropped.
    if (inbox == nullptr) return true;
    RETURN_IF_ERROR(inbox->AttachSender());
    inbox_ = std::move(inbox);
    epoch_ = slice_.epoch();
  }
  const v1::TensorSlice& tensor = slice_.slice();
  if (tensor.data_type() != v1::DATA_TYPE_FLOAT32 || tensor.shape_size() != 2) {
    return absl::DataLossError(absl::StrCat(
        "the hidden states of step ", slice_.step_id(), " have data type ",
        static_cast<int>(tensor.data_type()), " and ", tensor.shape_size(),
        " dimensions; they must be float32 [tokens, hidden_size]"));
  }
  HiddenStatesSlice slice;
  slice.step_id = slice_.step_id();
  slice.n_tokens = tensor.shape(0);
  slice.hidden_size = tensor.shape(1);
  slice.offset_bytes = tensor.offset_bytes();
  slice.total_bytes = tensor.total_bytes();
  slice.crc32c = tensor.crc32c();
  slice.data = absl::MakeConstSpan(tensor.data().data(), tensor.data().size());
  std::shared_ptr<TransferCall> self;
  {
    absl::MutexLock lock(&mu_);
    self = self_;
  }
  // The inbox keeps the call alive as long as it holds the slice back.
  return inbox_->Offer(slice, [self] { self->Deliver(); });
}

void TransferCall::ReadNext() {
  absl::MutexLock lock(&mu_);
  if (!finished_) StartRead(&slice_);
}

void TransferCall::End(const absl::Status& status) {
  if (inbox_ != nullptr) {
    if (status.ok()) {
      inbox_->EndOfSlices();
    } else {
      // The runner must not wait for what will not come.
      inbox_->Close(status);
    }
  }
  absl::MutexLock lock(&mu_);
  if (finished_) return;
  finished_ = true;
  Finish(ToGrpcStatus(status));
}

void TransferCall::OnDone() {
  std::shared_ptr<TransferCall> self;
  absl::MutexLock lock(&mu_);
  finished_ = true;
  self = std::move(self_);
}

}  // namespace tern
