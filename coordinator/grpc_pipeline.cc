#include "coordinator/grpc_pipeline.h"

#include <algorithm>
#include <deque>
#include <memory>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "coordinator/step_proto.h"
#include "grpcpp/alarm.h"
#include "grpcpp/client_context.h"
#include "grpcpp/support/client_callback.h"
#include "proto/tern/v1/worker.grpc.pb.h"
#include "util/grpc_status.h"
#include "util/logging.h"
#include "util/message_checksum.h"

namespace tern {
namespace {

// Plans that may wait for a slow connection to a worker. The scheduler stops at
// one per stage, one planned ahead and one of releases, so that this is never
// reached.
constexpr size_t kMaxQueuedPlans = 256;

// How long to wait, when a worker says that a neighbour is gone, for the
// neighbour's own connection to break: the worker that says so lives, and is
// not to lose its stage for it.
constexpr absl::Duration kNeighbourWait = absl::Milliseconds(100);

using SharedPlan = std::shared_ptr<const v1::StepPlan>;

}  // namespace

// What the calls of a pipeline share: it joins what the stages say.
// Thread-safe.
class GrpcPipeline::Core : public std::enable_shared_from_this<Core> {
 public:
  Core(Spec spec, Listener listener)
      : spec_(std::move(spec)),
        listener_(std::move(listener)),
        n_stages_(static_cast<int>(spec_.placement.stages.size())),
        stubs_(n_stages_),
        infos_(n_stages_),
        n_answered_(n_stages_, 0) {}

  const Spec& spec() const { return spec_; }
  v1::WorkerService::Stub* stub(int stage) const { return stubs_[stage].get(); }

  void Start(const Credentials* credentials) ABSL_LOCKS_EXCLUDED(mu_);
  void Close() ABSL_LOCKS_EXCLUDED(mu_);
  void Send(SharedPlan plan) ABSL_LOCKS_EXCLUDED(mu_);
  int SlowestStage() ABSL_LOCKS_EXCLUDED(mu_);

  void OnProgress(int stage, int64_t loaded, int64_t total)
      ABSL_LOCKS_EXCLUDED(mu_);
  void OnLoaded(int stage, const v1::StageInfo& info) ABSL_LOCKS_EXCLUDED(mu_);
  void OnResult(int stage, const v1::StepResult& result)
      ABSL_LOCKS_EXCLUDED(mu_);
  // is_from_worker: whether the stage's worker itself ended the call.
  void OnEnded(int stage, absl::Status status, bool is_from_worker = false)
      ABSL_LOCKS_EXCLUDED(mu_);

 private:
  void Lose(int stage, absl::Status status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void OnNeighbourWaited() ABSL_LOCKS_EXCLUDED(mu_);

  // Whether nothing is told to the listener any more.
  bool over() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return closed_ || lost_;
  }

  // Whether every stage has answered the next step.
  bool AllAnswered() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return *std::min_element(n_answered_.begin(), n_answered_.end()) >
           n_finished_;
  }

  const Spec spec_;
  const Listener listener_;
  const int n_stages_;
  std::vector<std::unique_ptr<v1::WorkerService::Stub>> stubs_;

  // Held while the listener is called: its calls come one at a time and in
  // order, and it only pushes into a mailbox.
  absl::Mutex mu_;
  bool closed_ ABSL_GUARDED_BY(mu_) = false;
  bool lost_ ABSL_GUARDED_BY(mu_) = false;
  // Who said first that a neighbour is gone, and what.
  absl::optional<std::pair<int, absl::Status>> first_word_ ABSL_GUARDED_BY(mu_);
  grpc::Alarm neighbour_wait_;
  std::vector<std::shared_ptr<LoadCall>> loads_ ABSL_GUARDED_BY(mu_);
  std::vector<std::shared_ptr<StepStream>> streams_ ABSL_GUARDED_BY(mu_);
  int n_loaded_ ABSL_GUARDED_BY(mu_) = 0;
  std::vector<StageInfo> infos_ ABSL_GUARDED_BY(mu_);
  int64_t n_sent_ ABSL_GUARDED_BY(mu_) = 0;
  int64_t n_finished_ ABSL_GUARDED_BY(mu_) = 0;
  std::vector<int64_t> n_answered_ ABSL_GUARDED_BY(mu_);  // by stage
  // The last stage's, of steps that earlier stages have not confirmed yet.
  std::deque<StepResult> results_ ABSL_GUARDED_BY(mu_);
  // The longest that a stage was busy with each step that is not finished.
  std::deque<absl::Duration> busy_ ABSL_GUARDED_BY(mu_);
};

// One LoadStage call. Keeps itself alive until OnDone().
class GrpcPipeline::LoadCall
    : public grpc::ClientReadReactor<v1::LoadStageResponse> {
 public:
  LoadCall(std::shared_ptr<Core> core, int stage)
      : core_(std::move(core)),
        stage_(stage),
        request_(LoadRequestOf(core_->spec(), stage)) {}

  void Start(std::shared_ptr<LoadCall> self) {
    self_ = std::move(self);
    core_->stub(stage_)->async()->LoadStage(&context_, &request_, this);
    StartRead(&response_);
    StartCall();
  }

  void Cancel() { context_.TryCancel(); }

  void OnReadDone(bool ok) override {
    if (!ok) return;
    core_->OnProgress(stage_, response_.loaded_bytes(),
                      response_.total_bytes());
    if (response_.has_loaded()) {
      loaded_ = true;
      info_ = response_.loaded();
    }
    StartRead(&response_);
  }

  void OnDone(const grpc::Status& status) override {
    const std::shared_ptr<LoadCall> self = std::move(self_);
    if (!status.ok()) {
      core_->OnEnded(stage_, FromGrpcStatus(status));
    } else if (!loaded_) {
      core_->OnEnded(stage_, absl::InternalError(
                                 "LoadStage ended without a loaded stage"));
    } else {
      core_->OnLoaded(stage_, info_);
    }
  }

 private:
  const std::shared_ptr<Core> core_;
  const int stage_;
  const v1::LoadStageRequest request_;
  grpc::ClientContext context_;
  v1::LoadStageResponse response_;
  bool loaded_ = false;
  v1::StageInfo info_;
  std::shared_ptr<LoadCall> self_;
};

// One ExecuteSteps stream. Keeps itself alive until OnDone().
class GrpcPipeline::StepStream
    : public grpc::ClientBidiReactor<v1::StepPlan, v1::StepResult> {
 public:
  StepStream(std::shared_ptr<Core> core, int stage)
      : core_(std::move(core)), stage_(stage) {}

  void Start(std::shared_ptr<StepStream> self) {
    self_ = std::move(self);
    core_->stub(stage_)->async()->ExecuteSteps(&context_, this);
    // Plans are written from outside of the reactions: the call stays until the
    // hold is given up.
    AddHold();
    StartRead(&result_);
    StartCall();
  }

  void Send(SharedPlan plan) ABSL_LOCKS_EXCLUDED(mu_) {
    absl::MutexLock lock(&mu_);
    if (ended_) return;
    CHECK(queue_.size() < kMaxQueuedPlans);
    queue_.push_back(std::move(plan));
    if (queue_.size() == 1) StartWrite(queue_.front().get());
  }

  void Cancel() ABSL_LOCKS_EXCLUDED(mu_) {
    context_.TryCancel();
    GiveUpHold();
  }

  void OnWriteDone(bool ok) override {
    absl::MutexLock lock(&mu_);
    queue_.pop_front();
    if (!ok || ended_) {
      queue_.clear();
      return;
    }
    if (!queue_.empty()) StartWrite(queue_.front().get());
  }

  void OnReadDone(bool ok) override {
    if (!ok) {
      GiveUpHold();
      return;
    }
    const absl::Status intact = TakeChecksum("a step's result", &result_);
    if (intact.ok()) {
      core_->OnResult(stage_, result_);
    } else {
      core_->OnEnded(stage_, intact);
    }
    StartRead(&result_);
  }

  void OnDone(const grpc::Status& status) override {
    const std::shared_ptr<StepStream> self = std::move(self_);
    core_->OnEnded(
        stage_,
        status.ok()
            ? absl::UnavailableError("the worker ended its stream of steps")
            : FromGrpcStatus(status),
        context_.GetServerTrailingMetadata().count(kFromWorkerKey) > 0);
  }

 private:
  // No write starts after this. Starting writes and giving up the hold exclude
  // each other: without the hold the call may vanish. Neither runs reactions in
  // the calling thread before the lock is released.
  void GiveUpHold() ABSL_LOCKS_EXCLUDED(mu_) {
    absl::MutexLock lock(&mu_);
    if (ended_) return;
    ended_ = true;
    RemoveHold();
  }

  const std::shared_ptr<Core> core_;
  const int stage_;
  grpc::ClientContext context_;
  v1::StepResult result_;
  std::shared_ptr<StepStream> self_;

  absl::Mutex mu_;
  bool ended_ ABSL_GUARDED_BY(mu_) = false;
  // The first one is being written.
  std::deque<SharedPlan> queue_ ABSL_GUARDED_BY(mu_);
};

void GrpcPipeline::Core::Start(const Credentials* credentials) {
  for (int stage = 0; stage < n_stages_; ++stage) {
    const std::string& address = spec_.placement.stages[stage].address;
    absl::StatusOr<std::shared_ptr<grpc::Channel>> channel =
        credentials->CreateChannel(address, kWorkerName);
    if (!channel.ok()) {
      OnEnded(stage, channel.status());
      return;
    }
    stubs_[stage] = v1::WorkerService::NewStub(*channel);
  }
  std::vector<std::shared_ptr<LoadCall>> loads;
  for (int stage = 0; stage < n_stages_; ++stage) {
    loads.push_back(std::make_shared<LoadCall>(shared_from_this(), stage));
  }
  {
    absl::MutexLock lock(&mu_);
    loads_ = loads;
  }
  for (const auto& load : loads) load->Start(load);
}

void GrpcPipeline::Core::Close() {
  std::vector<std::shared_ptr<LoadCall>> loads;
  std::vector<std::shared_ptr<StepStream>> streams;
  {
    absl::MutexLock lock(&mu_);
    closed_ = true;
    loads.swap(loads_);
    streams.swap(streams_);
  }
  for (const auto& load : loads) load->Cancel();
  for (const auto& stream : streams) stream->Cancel();
  neighbour_wait_.Cancel();
}

void GrpcPipeline::Core::Send(SharedPlan plan) {
  std::vector<std::shared_ptr<StepStream>> streams;
  {
    absl::MutexLock lock(&mu_);
    if (over()) return;
    CHECK(!streams_.empty());
    ++n_sent_;
    CHECK(plan->step_id() == n_sent_);
    streams = streams_;
  }
  for (const auto& stream : streams) stream->Send(plan);
}

void GrpcPipeline::Core::OnProgress(int stage, int64_t loaded, int64_t total) {
  absl::MutexLock lock(&mu_);
  if (!over()) listener_.on_progress(stage, loaded, total);
}

void GrpcPipeline::Core::OnLoaded(int stage, const v1::StageInfo& info) {
  if (info.kv_block_size() != spec_.kv_block_size) {
    OnEnded(stage, absl::FailedPreconditionError(absl::StrCat(
                       "the worker's KV blocks hold ", info.kv_block_size(),
                       " tokens; the coordinator's hold ", spec_.kv_block_size,
                       ": run workers and coordinator of one release")));
    return;
  }
  std::vector<std::shared_ptr<StepStream>> streams;
  {
    absl::MutexLock lock(&mu_);
    if (over()) return;
    infos_[stage] = {info.weight_bytes(), info.kv_bytes(), info.kept_kv()};
    if (++n_loaded_ < n_stages_) return;
    for (int i = 0; i < n_stages_; ++i) {
      streams.push_back(std::make_shared<StepStream>(shared_from_this(), i));
    }
  }
  // Before anyone else sees them: a stream must not be cancelled or written to
  // before it is started.
  for (const auto& stream : streams) stream->Start(stream);
  bool closed;
  {
    absl::MutexLock lock(&mu_);
    closed = closed_;
    if (!closed) streams_ = streams;
    if (!over()) listener_.on_ready(infos_);
  }
  if (!closed) return;
  for (const auto& stream : streams) stream->Cancel();
}

void GrpcPipeline::Core::OnResult(int stage, const v1::StepResult& result) {
  absl::StatusOr<StepResult> plain = FromProto(result, spec_);
  if (!plain.ok()) {
    OnEnded(stage, plain.status());
    return;
  }
  int64_t expected;
  {
    absl::MutexLock lock(&mu_);
    if (over()) return;
    expected = n_answered_[stage] + 1;
    if (plain->step_id == expected && expected <= n_sent_) {
      n_answered_[stage] = expected;
      const size_t i = expected - n_finished_ - 1;
      if (i == busy_.size()) busy_.emplace_back();
      busy_[i] = std::max(busy_[i], plain->busy);
      if (stage == n_stages_ - 1) results_.push_back(*std::move(plain));
      while (AllAnswered()) {
        ++n_finished_;
        results_.front().busy = busy_.front();
        busy_.pop_front();
        listener_.on_result(std::move(results_.front()));
        results_.pop_front();
      }
      return;
    }
  }
  OnEnded(stage, absl::InternalError(absl::StrCat("the worker answered step ",
                                                  result.step_id(), "; step ",
                                                  expected, " is due")));
}

int GrpcPipeline::Core::SlowestStage() {
  absl::MutexLock lock(&mu_);
  for (int stage = 0; stage < n_stages_; ++stage) {
    if (n_sent_ > n_finished_ && n_answered_[stage] == n_finished_) {
      return stage;
    }
  }
  return 0;
}

void GrpcPipeline::Core::OnEnded(int stage, absl::Status status,
                                 bool is_from_worker) {
  absl::MutexLock lock(&mu_);
  if (over()) return;
  if (!is_from_worker || !absl::IsUnavailable(status) || n_stages_ == 1) {
    Lose(stage, std::move(status));
    return;
  }
  if (first_word_.has_value()) return;
  first_word_.emplace(stage, std::move(status));
  neighbour_wait_.Set(
      absl::ToChronoTime(absl::Now() + kNeighbourWait),
      [self = shared_from_this()](bool) { self->OnNeighbourWaited(); });
}

void GrpcPipeline::Core::OnNeighbourWaited() {
  absl::MutexLock lock(&mu_);
  if (!over()) Lose(first_word_->first, std::move(first_word_->second));
}

void GrpcPipeline::Core::Lose(int stage, absl::Status status) {
  lost_ = true;
  listener_.on_lost(stage, std::move(status));
}

GrpcPipeline::GrpcPipeline(Spec spec, Listener listener,
                           const Credentials* credentials)
    : core_(std::make_shared<Core>(std::move(spec), std::move(listener))) {
  core_->Start(credentials);
}

GrpcPipeline::~GrpcPipeline() { core_->Close(); }

int GrpcPipeline::SlowestStage() { return core_->SlowestStage(); }

void GrpcPipeline::Send(const StepPlan& plan) {
  core_->Send(
      std::make_shared<const v1::StepPlan>(ToProto(plan, core_->spec())));
}

}  // namespace tern
