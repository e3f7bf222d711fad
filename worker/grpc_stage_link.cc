#include "worker/grpc_stage_link.h"

#include <algorithm>
#include <deque>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "grpcpp/client_context.h"
#include "grpcpp/support/client_callback.h"
#include "proto/tern/v1/tensor.pb.h"
#include "proto/tern/v1/worker.grpc.pb.h"
#include "proto/tern/v1/worker.pb.h"
#include "util/crc32c.h"
#include "util/grpc_status.h"
#include "util/logging.h"
#include "util/status_macros.h"

namespace tern {

// Keeps itself alive from Start() to OnDone(). A hold keeps gRPC from ending
// the call while Write() may still begin an operation; it goes with the first
// of Finish(), Close() and a failed write.
class GrpcStageLink::Stream
    : public grpc::ClientWriteReactor<v1::TransferHiddenStatesRequest> {
 public:
  Stream(std::shared_ptr<grpc::Channel> channel, std::string address,
         int waiting_max)
      : stub_(v1::WorkerService::NewStub(std::move(channel))),
        address_(std::move(address)),
        waiting_max_(waiting_max) {}

  void Start(std::shared_ptr<Stream> self) {
    {
      absl::MutexLock lock(&mu_);
      self_ = std::move(self);
    }
    stub_->async()->TransferHiddenStates(&context_, &response_, this);
    AddHold();
    StartCall();
  }

  absl::Status Write(v1::TransferHiddenStatesRequest request,
                     absl::Duration timeout) ABSL_LOCKS_EXCLUDED(mu_) {
    absl::MutexLock lock(&mu_);
    if (!mu_.AwaitWithTimeout(absl::Condition(this, &Stream::HasRoomOrEnded),
                              timeout)) {
      return absl::UnavailableError(absl::StrCat(
          "the next stage at ", address_, " took no hidden states for ",
          absl::FormatDuration(timeout)));
    }
    if (closed_) return absl::CancelledError("the stage link is closed");
    CHECK(!finishing_);
    if (broken_) {
      // What the peer has to say comes a moment after the failed write.
      mu_.AwaitWithTimeout(absl::Condition(&done_), timeout);
      return status_;
    }
    waiting_.push_back(std::move(request));
    if (waiting_.size() == 1) StartWrite(&waiting_.front());
    return absl::OkStatus();
  }

  void Finish() ABSL_LOCKS_EXCLUDED(mu_) {
    bool held = false;
    {
      absl::MutexLock lock(&mu_);
      if (closed_ || broken_ || finishing_) return;
      finishing_ = true;
      if (waiting_.empty()) {
        StartWritesDone();
        held = std::exchange(held_, false);
      }
    }
    if (held) RemoveHold();
  }

  void Close() ABSL_LOCKS_EXCLUDED(mu_) {
    bool held;
    {
      absl::MutexLock lock(&mu_);
      closed_ = true;
      held = std::exchange(held_, false);
    }
    context_.TryCancel();
    if (held) RemoveHold();
  }

 private:
  void OnWriteDone(bool ok) override ABSL_LOCKS_EXCLUDED(mu_) {
    bool drop_hold = false;
    {
      absl::MutexLock lock(&mu_);
      if (ok && !closed_) {
        waiting_.pop_front();
        if (!waiting_.empty()) {
          StartWrite(&waiting_.front());
        } else if (finishing_) {
          StartWritesDone();
          drop_hold = std::exchange(held_, false);
        }
      } else {
        broken_ = true;
        drop_hold = std::exchange(held_, false);
      }
    }
    if (drop_hold) RemoveHold();
  }

  void OnDone(const grpc::Status& status) override ABSL_LOCKS_EXCLUDED(mu_) {
    std::shared_ptr<Stream> self;
    absl::MutexLock lock(&mu_);
    broken_ = true;
    done_ = true;
    const absl::Status said = FromGrpcStatus(status);
    // CANCELLED, but not by us: by a server that stops.
    status_ =
        said.ok() || absl::IsCancelled(said)
            ? absl::UnavailableError(absl::StrCat(
                  "the next stage at ", address_, " ended the stage link"))
            : absl::Status(said.code(),
                           absl::StrCat("the next stage at ", address_, ": ",
                                        absl::string_view(said.message())));
    self = std::move(self_);
    // `self` was declared before the lock, so that the lock goes first.
  }

  bool HasRoomOrEnded() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return closed_ || broken_ ||
           waiting_.size() < static_cast<size_t>(waiting_max_);
  }

  const std::unique_ptr<v1::WorkerService::Stub> stub_;
  const std::string address_;
  const int waiting_max_;
  grpc::ClientContext context_;
  v1::TransferHiddenStatesResponse response_;

  absl::Mutex mu_;
  std::shared_ptr<Stream> self_ ABSL_GUARDED_BY(mu_);
  // The first is being written.
  std::deque<v1::TransferHiddenStatesRequest> waiting_ ABSL_GUARDED_BY(mu_);
  bool held_ ABSL_GUARDED_BY(mu_) = true;
  bool finishing_ ABSL_GUARDED_BY(mu_) = false;
  bool closed_ ABSL_GUARDED_BY(mu_) = false;
  bool broken_ ABSL_GUARDED_BY(mu_) = false;
  bool done_ ABSL_GUARDED_BY(mu_) = false;
  absl::Status status_ ABSL_GUARDED_BY(mu_) =
      absl::UnavailableError("the stage link broke");
};

GrpcStageLink::GrpcStageLink(const Options& options,
                             std::shared_ptr<grpc::Channel> channel)
    : options_(options),
      stream_(std::make_shared<Stream>(std::move(channel), options.address,
                                       options.waiting_slices_max)) {
  CHECK(options.hidden_size > 0 && options.slice_bytes > 0 &&
        options.waiting_slices_max > 0);
  stream_->Start(stream_);
}

GrpcStageLink::~GrpcStageLink() { stream_->Close(); }

void GrpcStageLink::Finish() { stream_->Finish(); }

void GrpcStageLink::Close() { stream_->Close(); }

absl::Status GrpcStageLink::Send(int64_t step_id,
                                 absl::Span<const float> hidden) {
  const char* const bytes = reinterpret_cast<const char*>(hidden.data());
  const size_t total = hidden.size() * sizeof(float);
  for (size_t offset = 0; offset < total; offset += options_.slice_bytes) {
    const size_t size = std::min<size_t>(options_.slice_bytes, total - offset);
    v1::TransferHiddenStatesRequest request;
    request.set_model(options_.model);
    request.set_pipeline_id(options_.pipeline_id);
    request.set_epoch(options_.epoch);
    request.set_step_id(step_id);
    v1::TensorSlice* const slice = request.mutable_slice();
    slice->set_data_type(v1::DATA_TYPE_FLOAT32);
    slice->add_shape(static_cast<int64_t>(hidden.size()) /
                     options_.hidden_size);
    slice->add_shape(options_.hidden_size);
    slice->set_offset_bytes(static_cast<int64_t>(offset));
    slice->set_total_bytes(static_cast<int64_t>(total));
    slice->set_data(bytes + offset, size);
    slice->set_crc32c(Crc32c(bytes + offset, size));
    RETURN_IF_ERROR(stream_->Write(std::move(request), options_.send_timeout));
  }
  return absl::OkStatus();
}

}  // namespace tern
