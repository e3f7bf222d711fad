#include "coordinator/generate_reactors.h"

#include <algorithm>
#include <iterator>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/optional.h"
#include "coordinator/generation.h"
#include "coordinator/grpc_retry_delay.h"
#include "coordinator/model_instance.h"
#include "coordinator/model_registry.h"
#include "coordinator/publisher.h"
#include "util/grpc_status.h"
#include "util/status_macros.h"

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

// A request whose name is not that of one that may be resumed, and *model that
// it is for.
absl::StatusOr<CheckedRequest> CheckUnkept(
    const v1::GenerateRequest& request, const std::string& principal,
    const ServiceContext& context, std::shared_ptr<ModelInstance>* model) {
  ASSIGN_OR_RETURN(*model, context.models->Find(request.model()));
  ASSIGN_OR_RETURN(CheckedRequest checked,
                   CheckRequest(request, (*model)->served()));
  RETURN_IF_ERROR(
      context.resumables->CheckIsFree(principal, checked.request_id));
  return checked;
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
    const std::string principal = context.credentials->PrincipalOf(*call).name;
    std::shared_ptr<ModelInstance> model;
    absl::StatusOr<CheckedRequest> checked =
        CheckUnkept(request, principal, context, &model);
    {
      absl::MutexLock lock(&mu_);
      if (checked.ok()) {
        model_ = std::move(model);
        generation_.emplace(model_->engine(), &model_->served(),
                            *std::move(checked));
        generation_->Start(principal, SequenceClass::kInteractive,
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
      Generation::Piece piece = generation_->Collect(
          [this](int index) { return CandidateOf(response_, index); });
      MovePromptLogprobs(&piece, response_);
      if (!piece.ended) return;
      finished_ = true;
      status = ToGrpcStatus(piece.status, piece.retry_after);
      if (piece.status.ok()) SetSummary(*generation_, response_);
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
  std::shared_ptr<ModelInstance> model_ ABSL_GUARDED_BY(mu_);
  absl::optional<Generation> generation_ ABSL_GUARDED_BY(mu_);
  bool finished_ ABSL_GUARDED_BY(mu_) = false;
};

// Whether there is nothing to tell of a candidate.
bool IsEmpty(const v1::Candidate& candidate) {
  return candidate.text().empty() && candidate.token_ids().empty() &&
         candidate.logprobs().empty() &&
         candidate.finish_reason() == v1::FINISH_REASON_UNSPECIFIED;
}

class StreamReactor
    : public grpc::ServerWriteReactor<v1::StreamGenerateResponse>,
      public Publishable {
 public:
  void Start(std::shared_ptr<StreamReactor> self, const ServiceContext& context,
             grpc::CallbackServerContext* call,
             const v1::StreamGenerateRequest& request) {
    self_ = self;
    publisher_ = context.publisher;
    const absl::Status status = request.has_resume_window()
                                    ? Begin(self, context, call, request)
                                    : Generate(self, context, call, request);
    if (!status.ok()) FinishAtOnce(status);
  }

  void Resume(std::shared_ptr<StreamReactor> self,
              const ServiceContext& context, grpc::CallbackServerContext* call,
              const v1::ResumeGenerateRequest& request) {
    self_ = self;
    publisher_ = context.publisher;
    const absl::Status status = GoOn(self, context, call, request);
    if (!status.ok()) FinishAtOnce(status);
  }

  void Publish() override { Act(); }

  void OnWriteDone(bool ok) override {
    publisher_->AwaitBurst();
    {
      absl::MutexLock lock(&mu_);
      writing_ = false;
      if (!ok) CancelLocked();
      if (!more_) return;
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

  // A request that ends with the call.
  absl::Status Generate(const std::shared_ptr<StreamReactor>& self,
                        const ServiceContext& context,
                        grpc::CallbackServerContext* call,
                        const v1::StreamGenerateRequest& request)
      ABSL_LOCKS_EXCLUDED(mu_) {
    const std::string principal = context.credentials->PrincipalOf(*call).name;
    std::shared_ptr<ModelInstance> model;
    ASSIGN_OR_RETURN(
        CheckedRequest checked,
        CheckUnkept(request.request(), principal, context, &model));
    absl::MutexLock lock(&mu_);
    model_ = std::move(model);
    pending_.resize(checked.sample_count);
    generation_.emplace(model_->engine(), &model_->served(),
                        std::move(checked));
    generation_->Start(principal, SequenceClass::kInteractive,
                       DeadlineOf(*call, context.clock),
                       WakerOf(self, context.publisher));
    return absl::OkStatus();
  }

  // One that may be resumed.
  absl::Status Begin(const std::shared_ptr<StreamReactor>& self,
                     const ServiceContext& context,
                     grpc::CallbackServerContext* call,
                     const v1::StreamGenerateRequest& request)
      ABSL_LOCKS_EXCLUDED(mu_) {
    ASSIGN_OR_RETURN(const absl::Duration window,
                     CheckResumeWindow(request.resume_window()));
    ASSIGN_OR_RETURN(std::shared_ptr<ModelInstance> model,
                     context.models->Find(request.request().model()));
    ASSIGN_OR_RETURN(CheckedRequest checked,
                     CheckRequest(request.request(), model->served()));
    ASSIGN_OR_RETURN(
        const std::shared_ptr<KeptRequest> kept,
        context.resumables->Begin(context.credentials->PrincipalOf(*call).name,
                                  std::move(model), std::move(checked), window,
                                  DeadlineOf(*call, context.clock)));
    Read(self, context, kept, {});
    kept->Submit();
    return absl::OkStatus();
  }

  absl::Status GoOn(const std::shared_ptr<StreamReactor>& self,
                    const ServiceContext& context,
                    grpc::CallbackServerContext* call,
                    const v1::ResumeGenerateRequest& request)
      ABSL_LOCKS_EXCLUDED(mu_) {
    RETURN_IF_ERROR(CheckRequestId(request.request_id()));
    ASSIGN_OR_RETURN(
        const std::shared_ptr<KeptRequest> kept,
        context.resumables->Find(context.credentials->PrincipalOf(*call).name,
                                 request.request_id()));
    ASSIGN_OR_RETURN(const std::vector<int> from,
                     CheckFromTokens(request, kept->request()));
    const KeptRequest::State state = kept->state();
    const bool is_whole = state.has_ended && !state.has_failed;
    for (size_t i = 0; i < from.size() && is_whole; ++i) {
      if (from[i] <= state.n_tokens[i]) continue;
      return absl::InvalidArgumentError(
          absl::StrCat("the caller has ", from[i], " tokens of candidate ", i,
                       ", which has ended with ", state.n_tokens[i]));
    }
    Read(self, context, kept, from);
    return absl::OkStatus();
  }

  void Read(const std::shared_ptr<StreamReactor>& self,
            const ServiceContext& context,
            const std::shared_ptr<KeptRequest>& kept,
            const std::vector<int>& skip) ABSL_LOCKS_EXCLUDED(mu_) {
    absl::MutexLock lock(&mu_);
    pending_.resize(kept->request().sample_count);
    generation_.emplace(kept, skip);
    generation_->Attach(WakerOf(self, context.publisher));
  }

  void FinishAtOnce(const absl::Status& status) ABSL_LOCKS_EXCLUDED(mu_) {
    {
      absl::MutexLock lock(&mu_);
      finished_ = true;
    }
    Finish(ToGrpcStatus(status));
  }

  void CancelLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (ended_) return;
    generation_->Cancel();
    ended_ = true;
    end_status_ = Cancelled();
    pending_prompt_.clear();
    for (v1::Candidate& candidate : pending_) candidate.Clear();
    more_ = true;
  }

  void Act() ABSL_LOCKS_EXCLUDED(mu_) {
    Action action;
    grpc::Status status;
    {
      absl::MutexLock lock(&mu_);
      action = NextAction();
      if (finished_) status = end_status_;
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
    if (finished_) return Action::kNone;
    if (writing_) {
      more_ = true;
      return Action::kNone;
    }
    if (!ended_) Collect();
    message_.clear_prompt_info();
    message_.clear_prompt_logprobs();
    if (admitted_ && !info_sent_) {
      info_sent_ = true;
      more_ = true;
      writing_ = true;
      *message_.mutable_prompt_info() = generation_->PromptInfo();
      return Action::kWrite;
    }
    // Before any delta: the message has none yet.
    if (!pending_prompt_.empty()) {
      more_ = true;
      writing_ = true;
      for (v1::TokenLogprob& token : pending_prompt_) {
        *message_.add_prompt_logprobs() = std::move(token);
      }
      pending_prompt_.clear();
      return Action::kWrite;
    }
    const int next = NextPending();
    if (next < 0) {
      more_ = false;
      if (!ended_) return Action::kNone;
      finished_ = true;
      return Action::kFinish;
    }
    // Not clear_delta(), which frees memory that serves again: the candidate
    // gets it in exchange.
    message_.mutable_delta()->Clear();
    message_.mutable_delta()->Swap(&pending_[next]);
    message_.mutable_delta()->set_index(next);
    turn_ = next + 1;
    more_ = ended_ || NextPending() >= 0;
    // An answered request always has something pending when it ends: why its
    // last candidate did.
    if (ended_ && end_status_.ok() && NextPending() < 0) {
      finished_ = true;
      *message_.mutable_usage() = generation_->Usage();
      for (v1::NumericsChange& change : generation_->NumericsChanges()) {
        *message_.add_numerics_changes() = std::move(change);
      }
      return Action::kWriteAndFinish;
    }
    writing_ = true;
    return Action::kWrite;
  }

  // The next candidate in turn with something to tell; -1 without any.
  int NextPending() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    const int n = static_cast<int>(pending_.size());
    for (int i = 0; i < n; ++i) {
      const int index = (turn_ + i) % n;
      if (!IsEmpty(pending_[index])) return index;
    }
    return -1;
  }

  void Collect() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    std::vector<v1::Candidate>* const pending = &pending_;
    Generation::Piece piece = generation_->Collect(
        [pending](int index) { return &(*pending)[index]; });
    admitted_ = piece.admitted;
    std::move(piece.prompt_logprobs.begin(), piece.prompt_logprobs.end(),
              std::back_inserter(pending_prompt_));
    ended_ = piece.ended;
    if (ended_) end_status_ = ToGrpcStatus(piece.status, piece.retry_after);
  }

  std::shared_ptr<StreamReactor> self_;  // until OnDone()
  Publisher* publisher_ = nullptr;       // once started
  // Being written while `writing_`, or to be finished with.
  v1::StreamGenerateResponse message_;

  absl::Mutex mu_;
  std::shared_ptr<ModelInstance> model_ ABSL_GUARDED_BY(mu_);
  absl::optional<Generation> generation_ ABSL_GUARDED_BY(mu_);
  bool admitted_ ABSL_GUARDED_BY(mu_) = false;
  bool info_sent_ ABSL_GUARDED_BY(mu_) = false;
  // What was not sent yet: of the prompt, and of each candidate, by index.
  std::vector<v1::TokenLogprob> pending_prompt_ ABSL_GUARDED_BY(mu_);
  std::vector<v1::Candidate> pending_ ABSL_GUARDED_BY(mu_);
  int turn_ ABSL_GUARDED_BY(mu_) = 0;  // index that may write next
  bool ended_ ABSL_GUARDED_BY(mu_) = false;
  grpc::Status end_status_ ABSL_GUARDED_BY(mu_);
  bool writing_ ABSL_GUARDED_BY(mu_) = false;
  // Whether there may be something to do when what is written is.
  bool more_ ABSL_GUARDED_BY(mu_) = false;
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

grpc::ServerWriteReactor<v1::StreamGenerateResponse>* NewResumeReactor(
    const ServiceContext& context, grpc::CallbackServerContext* call,
    const v1::ResumeGenerateRequest* request) {
  auto reactor = std::make_shared<StreamReactor>();
  reactor->Resume(reactor, context, call, *request);
  return reactor.get();
}

}  // namespace tern
