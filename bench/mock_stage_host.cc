#include "bench/mock_stage_host.h"

#include <pthread.h>
#include <sys/prctl.h>
#include <time.h>

#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/types/optional.h"
#include "util/logging.h"
#include "util/status_macros.h"
#include "worker/hidden_states_inbox.h"
#include "worker/sampled_tokens_inbox.h"
#include "worker/step.h"
#include "worker/step_mailbox.h"
#include "worker/token_ring.h"

namespace tern {
namespace {

// How long another stage may take.
constexpr absl::Duration kStageTimeout = absl::Seconds(60);

// The system may wake a sleeper this much late, 50 us by default, which would
// be a lot in a step of a millisecond.
constexpr unsigned long kTimerSlackNs = 1000;  // NOLINT(runtime/int)

// Steps whose hidden states may wait.
constexpr int kWaitingStepsMax = 4;

}  // namespace

// One epoch of one stage.
class MockStageHost::Session {
 public:
  Session(StepLimits limits, std::unique_ptr<MockStage> stage, StageLinks links,
          int link_width, std::atomic<int64_t>* finished_steps)
      : limits_(std::move(limits)),
        stage_(std::move(stage)),
        links_(std::move(links)),
        ring_(links_.in.tokens, links_.out.first),
        link_width_(link_width),
        finished_steps_(finished_steps),
        mailbox_(std::make_shared<StepMailbox>(
            kWaitingPlansMax,
            [links = links_](const absl::Status& status) {
              links.Close(status);
            })),
        thread_([this] { Main(); }) {}

  ~Session() {
    End(absl::CancelledError("the stage is gone"));
    thread_.join();
  }

  // The first call counts.
  void End(const absl::Status& status) {
    mailbox_->Abort(status);
    links_.Close(status);
  }

  const StepLimits& limits() const { return limits_; }
  const std::shared_ptr<StepMailbox>& mailbox() const { return mailbox_; }
  const Inboxes& inboxes() const { return links_.in; }

  StageUse use() const ABSL_LOCKS_EXCLUDED(mu_) {
    absl::MutexLock lock(&mu_);
    return use_;
  }

 private:
  void Main() {
    pthread_setname_np(pthread_self(), "stage");
    prctl(PR_SET_TIMERSLACK, kTimerSlackNs);
    const absl::Status status = RunAll();
    if (status.ok()) {
      mailbox_->Close(absl::CancelledError("the stream of plans has ended"));
      links_.Finish();
    } else {
      if (absl::IsInvalidArgument(status) || absl::IsNotFound(status) ||
          absl::IsAlreadyExists(status)) {
        LOG(ERROR) << "event=plan_refused pipeline=" << limits_.pipeline_id
                   << " epoch=" << limits_.epoch << " status=\""
                   << status.ToString() << "\"";
      }
      mailbox_->Abort(status);
    }
    const std::shared_ptr<StepSink> sink = mailbox_->TakeSink();
    if (sink != nullptr) sink->OnEnd(status);
  }

  absl::Status RunAll() ABSL_LOCKS_EXCLUDED(mu_) {
    while (true) {
      ASSIGN_OR_RETURN(absl::optional<StepPlan> plan, mailbox_->Next());
      if (!plan.has_value()) return absl::OkStatus();
      RETURN_IF_ERROR(ring_.Resolve(&*plan, kStageTimeout));
      ASSIGN_OR_RETURN(MockStage::Outcome outcome, stage_->Run(*plan));
      if (outcome.n_tokens > 0) RETURN_IF_ERROR(Occupy(&outcome));
      finished_steps_->fetch_add(1, std::memory_order_relaxed);
      mailbox_->sink()->OnResult(std::move(outcome.result));
    }
  }

  // Lasts as long as the step.
  absl::Status Occupy(MockStage::Outcome* outcome) ABSL_LOCKS_EXCLUDED(mu_) {
    StepResult& result = outcome->result;
    const absl::Time waiting = absl::Now();
    if (links_.in.hidden != nullptr) {
      RETURN_IF_ERROR(links_.in.hidden->Take(
          result.step_id, static_cast<int>(outcome->n_tokens), kStageTimeout,
          &hidden_));
    }
    const absl::Time begin = absl::Now();
    result.wait_ns = absl::ToInt64Nanoseconds(begin - waiting);
    // Under a millisecond for most: not worth to be interrupted.
    const timespec time =
        absl::ToTimespec(absl::Nanoseconds(result.compute_ns));
    if (result.compute_ns > 0) nanosleep(&time, nullptr);
    const absl::Time end = absl::Now();
    {
      absl::MutexLock lock(&mu_);
      if (use_.n_steps == 0) first_ = begin;
      ++use_.n_steps;
      use_.n_tokens += outcome->n_tokens;
      use_.busy += end - begin;
      use_.span = end - first_;
    }
    if (links_.is_last_stage()) {
      return ring_.Send(result.step_id, result.sampled);
    }
    hidden_.resize(outcome->n_tokens * link_width_);
    return links_.out.next->Send(result.step_id, hidden_);
  }

  const StepLimits limits_;
  const std::unique_ptr<MockStage> stage_;  // of the thread
  const StageLinks links_;
  TokenRing ring_;  // of the thread
  const int link_width_;
  std::atomic<int64_t>* const finished_steps_;
  const std::shared_ptr<StepMailbox> mailbox_;
  std::vector<float> hidden_;  // of the thread

  mutable absl::Mutex mu_;
  StageUse use_ ABSL_GUARDED_BY(mu_);
  absl::Time first_ ABSL_GUARDED_BY(mu_);

  std::thread thread_;
};

MockStageHost::MockStageHost(Options options, LinkFactory make_links)
    : options_(std::move(options)), make_links_(std::move(make_links)) {
  CHECK(options_.link_width >= 1);
}

MockStageHost::~MockStageHost() {
  Shutdown(absl::UnavailableError("the worker is shutting down"));
}

absl::Status MockStageHost::Check(const StageRequest& request) const {
  if (request.model != options_.model) {
    return absl::NotFoundError(
        absl::StrCat("this mock worker stands for model \"", options_.model,
                     "\", not \"", request.model, "\""));
  }
  if (request.model_fingerprint != options_.model_fingerprint) {
    return absl::FailedPreconditionError(absl::StrCat(
        "this mock worker's file of model \"", request.model,
        "\" is another one: its fingerprint is ",
        absl::Hex(options_.model_fingerprint, absl::kZeroPad16), ", not ",
        absl::Hex(request.model_fingerprint, absl::kZeroPad16)));
  }
  if (request.epoch < 1 || request.kv_block_count < 1 ||
      request.max_step_tokens < 1 || request.stage_count < 1 ||
      request.stage_index < 0 || request.stage_index >= request.stage_count) {
    return absl::InvalidArgumentError(absl::StrCat(
        "cannot load stage ", request.stage_index, " of ", request.stage_count,
        " in epoch ", request.epoch, " with ", request.kv_block_count,
        " KV blocks and ", request.max_step_tokens, " tokens a step"));
  }
  const bool is_last = request.stage_index + 1 == request.stage_count;
  if (is_last != request.next_stage_address.empty()) {
    return absl::InvalidArgumentError(
        "every stage but the last needs the address of the next one");
  }
  if (!request.first_stage_address.empty() &&
      (!is_last || request.stage_index == 0)) {
    return absl::InvalidArgumentError(
        "only the last of several stages sends to the first");
  }
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<MockStageHost::Session>>
MockStageHost::MakeSession(const StageRequest& request) {
  const bool is_last = request.stage_index + 1 == request.stage_count;
  const StepLimits limits = {
      request.model,          request.pipeline_id,     request.epoch,
      request.numerics_id,    options_.vocab_size,     options_.context_length,
      request.kv_block_count, request.max_step_tokens, is_last};
  MockStage::Options stage;
  stage.cost = options_.cost;
  stage.share =
      options_.layer_share > 0
          ? options_.layer_share * (request.layer_end - request.layer_begin)
      : options_.stage_share > 0 ? options_.stage_share
                                 : 1.0 / request.stage_count;
  stage.answer_tokens = options_.answer_tokens;
  ASSIGN_OR_RETURN(std::unique_ptr<MockStage> mock,
                   MockStage::Create(stage, limits));
  StageLinks links;
  if (request.stage_index > 0) {
    HiddenStatesInbox::Options inbox_options;
    inbox_options.hidden_size = options_.link_width;
    inbox_options.max_step_tokens = request.max_step_tokens;
    inbox_options.waiting_steps_max = kWaitingStepsMax;
    links.in.hidden = std::make_shared<HiddenStatesInbox>(inbox_options);
  } else if (!is_last) {
    SampledTokensInbox::Options inbox_options;
    inbox_options.vocab_size = options_.vocab_size;
    inbox_options.max_step_tokens = request.max_step_tokens;
    inbox_options.waiting_steps_max = kWaitingPlansMax;
    links.in.tokens = std::make_shared<SampledTokensInbox>(inbox_options);
  }
  ASSIGN_OR_RETURN(links.out, make_links_(request, options_.link_width));
  return std::make_shared<Session>(limits, std::move(mock), std::move(links),
                                   options_.link_width, &finished_steps_);
}

absl::Status MockStageHost::Load(const StageRequest& request,
                                 std::shared_ptr<LoadObserver> observer) {
  RETURN_IF_ERROR(Check(request));
  std::shared_ptr<Session> old;
  {
    absl::MutexLock lock(&mu_);
    RETURN_IF_ERROR(shutdown_);
    if (request.epoch <= epoch_) {
      return absl::AbortedError(absl::StrCat(
          "epoch ", request.epoch, " is stale; this worker is at ", epoch_));
    }
    epoch_ = request.epoch;
    old = std::move(session_);
    session_ = nullptr;
  }
  if (old != nullptr) {
    old->End(absl::AbortedError(
        absl::StrCat("epoch ", request.epoch, " has replaced this one")));
    old.reset();  // waits for a step under way
  }
  ASSIGN_OR_RETURN(std::shared_ptr<Session> session, MakeSession(request));
  {
    absl::MutexLock lock(&mu_);
    RETURN_IF_ERROR(shutdown_);
    if (request.epoch == epoch_) session_ = std::move(session);
  }
  if (session != nullptr) {
    return absl::AbortedError(
        absl::StrCat("a later epoch has replaced epoch ", request.epoch));
  }
  observer->OnLoaded(LoadedStage{0, 0});
  return absl::OkStatus();
}

absl::StatusOr<StageBackend::Plans> MockStageHost::plans() const {
  absl::MutexLock lock(&mu_);
  RETURN_IF_ERROR(shutdown_);
  if (session_ == nullptr) {
    return absl::FailedPreconditionError(
        "no stage is loaded on this worker; call LoadStage first");
  }
  return Plans{session_->mailbox(), session_->limits()};
}

absl::StatusOr<absl::optional<Inboxes>> MockStageHost::InboxesOf(
    absl::string_view model, absl::string_view pipeline_id,
    int64_t epoch) const {
  absl::MutexLock lock(&mu_);
  RETURN_IF_ERROR(shutdown_);
  if (epoch < epoch_) return absl::optional<Inboxes>();
  if (session_ == nullptr || epoch != epoch_) {
    return absl::AbortedError(
        absl::StrCat("what another stage sent in epoch ", epoch,
                     " came before this worker had loaded its stage for it"));
  }
  if (model != session_->limits().model ||
      pipeline_id != session_->limits().pipeline_id) {
    return absl::FailedPreconditionError(
        absl::StrCat("this worker takes nothing for model \"", model,
                     "\", pipeline \"", pipeline_id, "\""));
  }
  return absl::make_optional(session_->inboxes());
}

void MockStageHost::Shutdown(absl::Status status) {
  std::shared_ptr<Session> session;
  {
    absl::MutexLock lock(&mu_);
    if (!shutdown_.ok()) return;
    shutdown_ = status;
    session = session_;
  }
  if (session != nullptr) session->End(std::move(status));
}

StageUse MockStageHost::use() const {
  absl::MutexLock lock(&mu_);
  return session_ == nullptr ? StageUse() : session_->use();
}

}  // namespace tern
