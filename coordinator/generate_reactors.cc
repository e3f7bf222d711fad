#include "coordinator/generate_reactors.h"

#include <algorithm>
#include <iterator>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/optional.h"
#include "coordinator/generation.h"
#include "coordinator/grpc_retry_delay.h"
#include "coordinator/publisher.h"
#include "util/grpc_status.h"

namespace tern {
namespace {

// Wakes `reactor`, as long as it is there.
template <typename Reactor>
std::function<void()> WakerOf(const std::shared_ptr<Reactor>& reactor,
                              Publisher* publisher) {
  return [weak = std::weak_ptr<Reactor>(reactor), publisher] {
    if (std::shared_ptr<Reactor> strong = weak.lock()) {
      publisher->Wake(std::move(strong));
    }
  };
}

grpc::Status Cancelled() {
  return grpc::Status(grpc::StatusCode::CANCELLED, "the call was cancelled");
}

// Both reactors decide under their lock what to do next, and do it after
// letting go of it: `writing_` and `finished_` make sure that one thread acts
// at a time.

class GenerateReactor : public grpc::ServerUnaryReactor, public Publishable {
 public:
  explicit GenerateReactor(v1::GenerateResponse* response)
      : response_(response) {}

  void Start(std::shared_ptr<GenerateReactor> self,
             const ServiceContext& context, grpc::CallbackServerContext* call,
             const v1::GenerateRequest& request) {
    self_ = self;
    absl::StatusOr<CheckedRequest> checked =
        CheckRequest(request, *context.model);
    {
      absl::MutexLock lock(&mu_);
      if (checked.ok()) {
        generation_.emplace(context.engine, context.model, *std::move(checked));
        generation_->Start(context.credentials->PrincipalOf(*call).name,
                           SequenceClass::kInteractive,
                           DeadlineOf(*call, context.clock),
                           WakerOf(self, context.publisher));
        return;
      }
      finished_ = true;
    }
    Finish(ToGrpcStatus(checked.status()));
  }

  void Publish() override {
    grpc::Status status;
    {
      absl::MutexLock lock(&mu_);
      if (finished_) return;
      Generation::Piece piece = generation_->Collect();
      AppendPiece(&piece, response_);
      if (!piece.ended) return;
      finished_ = true;
      status = ToGrpcStatus(piece.status, piece.retry_after);
      if (piece.status.ok()) {
        *response_->mutable_prompt_info() = generation_->PromptInfo();
        *response_->mutable_usage() = generation_->Usage();
      }
    }
    Finish(status);
  }

  void OnCancel() override {
    {
      absl::MutexLock lock(&mu_);
      if (finished_) return;
      finished_ = true;
      generation_->Cancel();
    }
    Finish(Cancelled());
  }

  void OnDone() override { const auto self = std::move(self_); }

 private:
  v1::GenerateResponse* const response_;   // written under mu_
  std::shared_ptr<GenerateReactor> self_;  // until OnDone()

  absl::Mutex mu_;
  absl::optional<Generation> generation_ ABSL_GUARDED_BY(mu_);
  bool finished_ ABSL_GUARDED_BY(mu_) = false;
};

class StreamReactor
    : public grpc::ServerWriteReactor<v1::StreamGenerateResponse>,
      public Publishable {
 public:
  void Start(std::shared_ptr<StreamReactor> self, const ServiceContext& context,
             grpc::CallbackServerContext* call,
             const v1::StreamGenerateRequest& request) {
    self_ = self;
    absl::StatusOr<CheckedRequest> checked =
        CheckRequest(request.request(), *context.model);
    {
      absl::MutexLock lock(&mu_);
      if (checked.ok()) {
        generation_.emplace(context.engine, context.model, *std::move(checked));
        generation_->Start(context.credentials->PrincipalOf(*call).name,
                           SequenceClass::kInteractive,
                           DeadlineOf(*call, context.clock),
                           WakerOf(self, context.publisher));
        return;
      }
      finished_ = true;
    }
    Finish(ToGrpcStatus(checked.status()));
  }

  void Publish() override { Act(); }

  void OnWriteDone(bool ok) override {
    {
      absl::MutexLock lock(&mu_);
      writing_ = false;
      if (!ok) CancelLocked();
    }
    Act();
  }

  void OnCancel() override {
    {
      absl::MutexLock lock(&mu_);
      CancelLocked();
    }
    Act();
  }

  void OnDone() override { const auto self = std::move(self_); }

 private:
  enum class Action { kNone, kWrite, kWriteAndFinish, kFinish };

  void CancelLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (ended_) return;
    generation_->Cancel();
    ended_ = true;
    end_status_ = Cancelled();
    pending_prompt_.clear();
    pending_.clear();
  }

  void Act() ABSL_LOCKS_EXCLUDED(mu_) {
    Action action;
    grpc::Status status;
    {
      absl::MutexLock lock(&mu_);
      action = NextAction();
      status = end_status_;
    }
    switch (action) {
      case Action::kNone:
        break;
      case Action::kWrite:
        StartWrite(&message_);
        break;
      case Action::kWriteAndFinish:
        StartWriteAndFinish(&message_, grpc::WriteOptions(), status);
        break;
      case Action::kFinish:
        Finish(status);
        break;
    }
  }

  Action NextAction() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (finished_ || writing_) return Action::kNone;
    if (!ended_) Collect();
    message_.Clear();
    if (admitted_ && !info_sent_) {
      info_sent_ = true;
      writing_ = true;
      *message_.mutable_prompt_info() = generation_->PromptInfo();
      return Action::kWrite;
    }
    if (!pending_prompt_.empty()) {
      writing_ = true;
      for (v1::TokenLogprob& token : pending_prompt_) {
        *message_.add_prompt_logprobs() = std::move(token);
      }
      pending_prompt_.clear();
      return Action::kWrite;
    }
    if (pending_.empty()) {
      if (!ended_) return Action::kNone;
      finished_ = true;
      return Action::kFinish;
    }
    auto next = pending_.lower_bound(turn_);
    if (next == pending_.end()) next = pending_.begin();
    turn_ = next->first + 1;
    message_.mutable_delta()->Swap(&next->second);
    pending_.erase(next);
    // An answered request always has something pending when it ends: why its
    // last candidate did.
    if (ended_ && end_status_.ok() && pending_.empty()) {
      finished_ = true;
      *message_.mutable_usage() = generation_->Usage();
      return Action::kWriteAndFinish;
    }
    writing_ = true;
    return Action::kWrite;
  }

  void Collect() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    Generation::Piece piece = generation_->Collect();
    admitted_ = piece.admitted;
    std::move(piece.prompt_logprobs.begin(), piece.prompt_logprobs.end(),
              std::back_inserter(pending_prompt_));
    for (v1::Candidate& delta : piece.deltas) {
      v1::Candidate* const pending = &pending_[delta.index()];
      AppendDelta(std::move(delta), pending);
    }
    ended_ = piece.ended;
    if (ended_) end_status_ = ToGrpcStatus(piece.status, piece.retry_after);
  }

  std::shared_ptr<StreamReactor> self_;  // until OnDone()
  // Being written while `writing_`, or to be finished with.
  v1::StreamGenerateResponse message_;

  absl::Mutex mu_;
  absl::optional<Generation> generation_ ABSL_GUARDED_BY(mu_);
  bool admitted_ ABSL_GUARDED_BY(mu_) = false;
  bool info_sent_ ABSL_GUARDED_BY(mu_) = false;
  // Not sent yet.
  std::vector<v1::TokenLogprob> pending_prompt_ ABSL_GUARDED_BY(mu_);
  std::map<int, v1::Candidate> pending_ ABSL_GUARDED_BY(mu_);  // not sent yet
  int turn_ ABSL_GUARDED_BY(mu_) = 0;  // index that may write next
  bool ended_ ABSL_GUARDED_BY(mu_) = false;
  grpc::Status end_status_ ABSL_GUARDED_BY(mu_);
  bool writing_ ABSL_GUARDED_BY(mu_) = false;
  bool finished_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace

grpc::ServerUnaryReactor* NewGenerateReactor(const ServiceContext& context,
                                             grpc::CallbackServerContext* call,
                                             const v1::GenerateRequest* request,
                                             v1::GenerateResponse* response) {
  auto reactor = std::make_shared<GenerateReactor>(response);
  reactor->Start(reactor, context, call, *request);
  return reactor.get();
}

grpc::ServerWriteReactor<v1::StreamGenerateResponse>* NewStreamReactor(
    const ServiceContext& context, grpc::CallbackServerContext* call,
    const v1::StreamGenerateRequest* request) {
  auto reactor = std::make_shared<StreamReactor>();
  reactor->Start(reactor, context, call, *request);
  return reactor.get();
}

}  // namespace tern
