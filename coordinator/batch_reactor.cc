#include "coordinator/batch_reactor.h"

#include <algorithm>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
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

namespace tern {
namespace {

// Half of the prompts in progress while no pipeline serves yet.
constexpr int64_t kWindowMin = 64;

// Which numbers have been seen. Those in order from 0 take no memory.
class IndexSet {
 public:
  // False when `index` was there already.
  bool Insert(int64_t index) {
    if (index < all_below_ || !above_.insert(index).second) return false;
    while (above_.erase(all_below_) > 0) ++all_below_;
    return true;
  }

 private:
  int64_t all_below_ = 0;
  absl::flat_hash_set<int64_t> above_;
};

class BatchReactor;

// One prompt in progress.
class BatchItem : public Publishable,
                  public std::enable_shared_from_this<BatchItem> {
 public:
  BatchItem(std::shared_ptr<BatchReactor> reactor, int64_t index,
            std::shared_ptr<ModelInstance> model, CheckedRequest request)
      : reactor_(std::move(reactor)),
        index_(index),
        model_(std::move(model)),
        request_(std::move(request)) {}

  // Hands the prompt to the engine; again when it was refused before.
  void Start(const ServiceContext& context, const std::string& principal,
             absl::Time deadline) ABSL_LOCKS_EXCLUDED(mu_);

  void Cancel() ABSL_LOCKS_EXCLUDED(mu_);

  void Publish() override ABSL_LOCKS_EXCLUDED(mu_);

  int64_t index() const { return index_; }

 private:
  const std::shared_ptr<BatchReactor> reactor_;
  const int64_t index_;
  const std::shared_ptr<ModelInstance> model_;
  const CheckedRequest request_;

  absl::Mutex mu_;
  absl::optional<Generation> generation_ ABSL_GUARDED_BY(mu_);
  v1::GenerateResponse response_ ABSL_GUARDED_BY(mu_);
  bool ended_ ABSL_GUARDED_BY(mu_) = true;
};

class BatchReactor : public grpc::ServerBidiReactor<v1::BatchGenerateRequest,
                                                    v1::BatchGenerateResponse> {
 public:
  BatchReactor(const ServiceContext& context, grpc::CallbackServerContext* call)
      : context_(context),
        principal_(context.credentials->PrincipalOf(*call).name),
        deadline_(DeadlineOf(*call, context.clock)) {}

  void Start(std::shared_ptr<BatchReactor> self) {
    self_ = std::move(self);
    Act();
  }

  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override { const auto self = std::move(self_); }

  // An item has ended with an answer or a status.
  void OnItemEnded(const std::shared_ptr<BatchItem>& item,
                   const absl::Status& status,
                   std::optional<absl::Duration> retry_after,
                   v1::GenerateResponse response) ABSL_LOCKS_EXCLUDED(mu_);

 private:
  using Items = absl::flat_hash_map<int64_t, std::shared_ptr<BatchItem>>;

  // Ends the call once nothing is being written. Returns what to cancel.
  Items Fail(grpc::Status status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  static void CancelAll(Items items);

  void AddError(int64_t index, const absl::Status& status,
                std::optional<absl::Duration> retry_after = {})
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  // Starts whatever should be going on and is not: a read, a write, parked
  // prompts, the end.
  void Act() ABSL_LOCKS_EXCLUDED(mu_);

  // Enough to keep every pipeline's batch full while results are written and
  // prompts read.
  size_t Window() const {
    return std::min<int64_t>(
        2 * std::max(kWindowMin, context_.models->RunnableSequences()),
        context_.batch_window_max);
  }

  const ServiceContext context_;
  const std::string principal_;
  const absl::Time deadline_;
  std::shared_ptr<BatchReactor> self_;  // until OnDone()
  v1::BatchGenerateRequest request_;    // being read
  v1::BatchGenerateResponse message_;   // being written
  IndexSet seen_;                       // used by OnReadDone() alone

  absl::Mutex mu_;
  Items in_progress_ ABSL_GUARDED_BY(mu_);
  // Refused for a full queue; each that ends lets one of them try again. With
  // nothing else in progress they fail: the queue is full of others.
  std::deque<std::shared_ptr<BatchItem>> parked_ ABSL_GUARDED_BY(mu_);
  int n_retries_ ABSL_GUARDED_BY(mu_) = 0;
  std::deque<v1::BatchGenerateResponse> results_ ABSL_GUARDED_BY(mu_);
  bool reading_ ABSL_GUARDED_BY(mu_) = false;
  bool writing_ ABSL_GUARDED_BY(mu_) = false;
  bool half_closed_ ABSL_GUARDED_BY(mu_) = false;
  bool failed_ ABSL_GUARDED_BY(mu_) = false;
  bool finished_ ABSL_GUARDED_BY(mu_) = false;
  grpc::Status status_ ABSL_GUARDED_BY(mu_);
};

void BatchItem::Start(const ServiceContext& context,
                      const std::string& principal, absl::Time deadline) {
  absl::MutexLock lock(&mu_);
  generation_.emplace(model_->engine(), &model_->served(), request_);
  ended_ = false;
  generation_->Start(principal, SequenceClass::kBatch, deadline,
                     [weak = weak_from_this(), publisher = context.publisher] {
                       if (auto strong = weak.lock())
                         publisher->Wake(std::move(strong));
                     });
}

void BatchItem::Cancel() {
  absl::MutexLock lock(&mu_);
  ended_ = true;
  if (generation_.has_value()) generation_->Cancel();
}

void BatchItem::Publish() {
  absl::Status status;
  std::optional<absl::Duration> retry_after;
  v1::GenerateResponse response;
  {
    absl::MutexLock lock(&mu_);
    if (ended_) return;
    v1::GenerateResponse* const so_far = &response_;
    Generation::Piece piece = generation_->Collect(
        [so_far](int index) { return CandidateOf(so_far, index); });
    MovePromptLogprobs(&piece, so_far);
    if (!piece.ended) return;
    ended_ = true;
    status = piece.status;
    retry_after = piece.retry_after;
    if (status.ok()) {
      response.Swap(&response_);
      SetSummary(*generation_, &response);
    }
  }
  reactor_->OnItemEnded(shared_from_this(), status, retry_after,
                        std::move(response));
}

void BatchReactor::OnReadDone(bool ok) {
  absl::Status fatal;
  absl::StatusOr<CheckedRequest> checked =
      absl::CancelledError("nothing was read");
  absl::StatusOr<std::shared_ptr<ModelInstance>> model = checked.status();
  int64_t index = -1;
  if (ok) {
    index = request_.index();
    if (index < 0) {
      fatal = absl::InvalidArgumentError(
          absl::StrCat("index is ", index, "; it must be at least 0"));
    } else if (!seen_.Insert(index)) {
      fatal = absl::InvalidArgumentError(absl::StrCat(
          "index ", index, " came twice; each prompt of a call has its own"));
    } else {
      model = context_.models->Find(request_.request().model());
      checked = model.ok()
                    ? CheckRequest(request_.request(), (*model)->served())
                    : model.status();
      if (checked.ok()) {
        const absl::Status is_free =
            context_.resumables->CheckIsFree(principal_, checked->request_id);
        if (!is_free.ok()) checked = is_free;
      }
    }
  }
  Items to_cancel;
  std::shared_ptr<BatchItem> item;
  {
    absl::MutexLock lock(&mu_);
    reading_ = false;
    if (!ok) {
      half_closed_ = true;
    } else if (!fatal.ok()) {
      to_cancel = Fail(ToGrpcStatus(fatal));
    } else if (failed_) {
      // Nobody waits for it any more.
    } else if (!checked.ok()) {
      AddError(index, checked.status());
    } else {
      item = std::make_shared<BatchItem>(self_, index, *std::move(model),
                                         *std::move(checked));
      in_progress_[index] = item;
    }
  }
  CancelAll(std::move(to_cancel));
  if (item != nullptr) item->Start(context_, principal_, deadline_);
  Act();
}

void BatchReactor::OnWriteDone(bool ok) {
  Items to_cancel;
  {
    absl::MutexLock lock(&mu_);
    writing_ = false;
    if (!ok) {
      to_cancel =
          Fail(grpc::Status(grpc::StatusCode::CANCELLED, "the caller is gone"));
    }
  }
  CancelAll(std::move(to_cancel));
  Act();
}

void BatchReactor::OnCancel() {
  Items to_cancel;
  {
    absl::MutexLock lock(&mu_);
    to_cancel = Fail(
        grpc::Status(grpc::StatusCode::CANCELLED, "the call was cancelled"));
  }
  CancelAll(std::move(to_cancel));
  Act();
}

void BatchReactor::OnItemEnded(const std::shared_ptr<BatchItem>& item,
                               const absl::Status& status,
                               std::optional<absl::Duration> retry_after,
                               v1::GenerateResponse response) {
  {
    absl::MutexLock lock(&mu_);
    if (in_progress_.erase(item->index()) == 0) return;  // cancelled
    const bool park = retry_after.has_value() && !in_progress_.empty();
    if (!park) ++n_retries_;
    if (park) {
      parked_.push_back(item);
    } else if (!status.ok()) {
      AddError(item->index(), status, retry_after);
    } else {
      v1::BatchGenerateResponse& result = results_.emplace_back();
      result.set_index(item->index());
      result.mutable_response()->Swap(&response);
    }
  }
  Act();
}

BatchReactor::Items BatchReactor::Fail(grpc::Status status) {
  if (failed_) return {};
  failed_ = true;
  status_ = std::move(status);
  results_.clear();
  parked_.clear();
  return std::exchange(in_progress_, {});
}

void BatchReactor::CancelAll(Items items) {
  for (const auto& [index, item] : items) item->Cancel();
}

void BatchReactor::AddError(int64_t index, const absl::Status& status,
                            std::optional<absl::Duration> retry_after) {
  v1::BatchGenerateResponse& result = results_.emplace_back();
  result.set_index(index);
  result.mutable_error()->set_code(static_cast<int>(status.code()));
  result.mutable_error()->set_message(std::string(status.message()));
  if (retry_after.has_value()) {
    *result.mutable_error()->mutable_retry_delay() = RetryDelay(*retry_after);
  }
}

// Operations start under the lock, which gRPC's reactions do not come into:
// else another thread might end the call between the decision and the start.
void BatchReactor::Act() {
  std::shared_ptr<BatchItem> retry;
  {
    absl::MutexLock lock(&mu_);
    if (finished_) return;
    if (parked_.empty()) n_retries_ = 0;
    if (n_retries_ > 0 && !failed_) {
      --n_retries_;
      retry = std::move(parked_.front());
      parked_.pop_front();
      in_progress_[retry->index()] = retry;
    }
    const size_t n_held =
        in_progress_.size() + parked_.size() + results_.size();
    if (!failed_ && !half_closed_ && !reading_ && parked_.empty() &&
        n_held < Window()) {
      reading_ = true;
      StartRead(&request_);
    }
    if (!writing_ && !failed_ && !results_.empty()) {
      message_.Swap(&results_.front());
      results_.pop_front();
      writing_ = true;
      StartWrite(&message_);
    }
    const bool all_done = half_closed_ && n_held == 0;
    if (!writing_ && (failed_ || all_done)) {
      finished_ = true;
      Finish(status_);
    }
  }
  if (retry != nullptr) retry->Start(context_, principal_, deadline_);
}

}  // namespace

grpc::ServerBidiReactor<v1::BatchGenerateRequest, v1::BatchGenerateResponse>*
NewBatchReactor(const ServiceContext& context,
                grpc::CallbackServerContext* call) {
  auto reactor = std::make_shared<BatchReactor>(context, call);
  reactor->Start(reactor);
  return reactor.get();
}

}  // namespace tern
