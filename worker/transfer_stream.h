#ifndef WORKER_TRANSFER_STREAM_H_
#define WORKER_TRANSFER_STREAM_H_

#include <cstddef>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "grpcpp/client_context.h"
#include "grpcpp/support/client_callback.h"
#include "grpcpp/support/status.h"
#include "util/grpc_status.h"
#include "util/logging.h"

namespace tern {

// The sending end of a stream to another stage: bounded, and with an error that
// names the peer. Thread-safe.
//
// Keeps itself alive from Start() to OnDone(). A hold keeps gRPC from ending
// the call while Write() may still begin an operation; it goes with the first
// of Finish(), Close() and a failed write.
template <typename Request, typename Response>
class TransferStream : public grpc::ClientWriteReactor<Request> {
 public:
  // Begins the call with this reactor, without waiting for the peer. Lives as
  // long as the call.
  using Caller =
      std::function<void(grpc::ClientContext* context, Response* response,
                         TransferStream* reactor)>;

  // peer: who and where, and what: is sent, for messages.
  // waiting_max: messages that wait to be written; must be > 0.
  static std::shared_ptr<TransferStream> Start(std::string peer,
                                               std::string what,
                                               int waiting_max, Caller call) {
    CHECK(waiting_max > 0);
    const std::shared_ptr<TransferStream> stream(new TransferStream(
        std::move(peer), std::move(what), waiting_max, std::move(call)));
    {
      absl::MutexLock lock(&stream->mu_);
      stream->self_ = stream;
    }
    stream->call_(&stream->context_, &stream->response_, stream.get());
    stream->AddHold();
    stream->StartCall();
    return stream;
  }

  // Sends a message. UNAVAILABLE when the peer cannot be reached or takes
  // nothing for `timeout`; what it answered when it refused; CANCELLED after
  // Close().
  absl::Status Write(Request request, absl::Duration timeout)
      ABSL_LOCKS_EXCLUDED(mu_) {
    absl::MutexLock lock(&mu_);
    if (!mu_.AwaitWithTimeout(
            absl::Condition(this, &TransferStream::HasRoomOrEnded), timeout)) {
      return absl::UnavailableError(absl::StrCat(
          peer_, " took no ", what_, " for ", absl::FormatDuration(timeout)));
    }
    if (closed_)
      return absl::CancelledError(
          absl::StrCat("the stream of ", what_, " is closed"));
    CHECK(!finishing_);
    if (broken_) {
      // What the peer has to say comes a moment after the failed write.
      mu_.AwaitWithTimeout(absl::Condition(&done_), timeout);
      return status_;
    }
    waiting_.push_back(std::move(request));
    if (waiting_.size() == 1) this->StartWrite(&waiting_.front());
    return absl::OkStatus();
  }

  // Nothing follows: the call ends when all that was written is with the peer.
  // Does not wait.
  void Finish() ABSL_LOCKS_EXCLUDED(mu_) {
    bool held = false;
    {
      absl::MutexLock lock(&mu_);
      if (closed_ || broken_ || finishing_) return;
      finishing_ = true;
      if (waiting_.empty()) {
        this->StartWritesDone();
        held = std::exchange(held_, false);
      }
    }
    if (held) this->RemoveHold();
  }

  // Ends the call and any waiting at once. Does not wait itself.
  void Close() ABSL_LOCKS_EXCLUDED(mu_) {
    bool held;
    {
      absl::MutexLock lock(&mu_);
      closed_ = true;
      held = std::exchange(held_, false);
    }
    context_.TryCancel();
    if (held) this->RemoveHold();
  }

 private:
  TransferStream(std::string peer, std::string what, int waiting_max,
                 Caller call)
      : peer_(std::move(peer)),
        what_(std::move(what)),
        waiting_max_(waiting_max),
        call_(std::move(call)) {}

  void OnWriteDone(bool ok) override ABSL_LOCKS_EXCLUDED(mu_) {
    bool drop_hold = false;
    {
      absl::MutexLock lock(&mu_);
      if (ok && !closed_) {
        waiting_.pop_front();
        if (!waiting_.empty()) {
          this->StartWrite(&waiting_.front());
        } else if (finishing_) {
          this->StartWritesDone();
          drop_hold = std::exchange(held_, false);
        }
      } else {
        broken_ = true;
        drop_hold = std::exchange(held_, false);
      }
    }
    if (drop_hold) this->RemoveHold();
  }

  void OnDone(const grpc::Status& status) override ABSL_LOCKS_EXCLUDED(mu_) {
    std::shared_ptr<TransferStream> self;
    absl::MutexLock lock(&mu_);
    broken_ = true;
    done_ = true;
    const absl::Status said = FromGrpcStatus(status);
    // CANCELLED, but not by us: by a server that stops.
    status_ =
        said.ok() || absl::IsCancelled(said)
            ? absl::UnavailableError(
                  absl::StrCat(peer_, " ended the stream of ", what_))
            : absl::Status(
                  said.code(),
                  absl::StrCat(peer_, ": ", absl::string_view(said.message())));
    self = std::move(self_);
    // `self` was declared before the lock, so that the lock goes first.
  }

  bool HasRoomOrEnded() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return closed_ || broken_ ||
           waiting_.size() < static_cast<size_t>(waiting_max_);
  }

  const std::string peer_;
  const std::string what_;
  const int waiting_max_;
  const Caller call_;
  grpc::ClientContext context_;
  Response response_;

  absl::Mutex mu_;
  std::shared_ptr<TransferStream> self_ ABSL_GUARDED_BY(mu_);
  // The first is being written.
  std::deque<Request> waiting_ ABSL_GUARDED_BY(mu_);
  bool held_ ABSL_GUARDED_BY(mu_) = true;
  bool finishing_ ABSL_GUARDED_BY(mu_) = false;
  bool closed_ ABSL_GUARDED_BY(mu_) = false;
  bool broken_ ABSL_GUARDED_BY(mu_) = false;
  bool done_ ABSL_GUARDED_BY(mu_) = false;
  absl::Status status_ ABSL_GUARDED_BY(mu_) =
      absl::UnavailableError("the stream broke");
};

}  // namespace tern

#endif  // WORKER_TRANSFER_STREAM_H_
