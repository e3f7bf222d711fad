#include "worker/stage_host.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "kernels/attention.h"
#include "kernels/kernels.h"
#include "model/stage_plan.h"
#include "model/weights.h"
#include "util/logging.h"
#include "util/status_macros.h"
#include "worker/hidden_states_inbox.h"
#include "worker/sampled_tokens_inbox.h"

namespace tern {
namespace {

// Loads that may wait for the one under way to notice that it is over.
constexpr int kWaitingLoadsMax = 4;

// Epochs without a step that a KV pool may be kept through.
constexpr size_t kKvEpochsMax = 64;

// What one step may have: with float32 hidden states of 2560 elements that is
// 168 MB per buffer.
constexpr int32_t kStepTokensMax = 1 << 14;

StageRange RangeOf(const StageRequest& request) {
  return {request.layer_begin, request.layer_end, request.stage_index == 0,
          request.stage_index == request.stage_count - 1};
}

absl::Status CheckNumerics(const std::string& numerics_id,
                           HeadMode* head_mode) {
  const std::vector<std::string> parts = absl::StrSplit(numerics_id, '/');
  if (parts.size() == 2 && parts[0] == kCpuNumericsClass &&
      ParseHeadMode(parts[1], head_mode)) {
    return absl::OkStatus();
  }
  return absl::FailedPreconditionError(absl::StrCat(
      "this worker cannot compute with numerics id \"", numerics_id,
      "\"; it has \"", kCpuNumericsClass, "/", HeadModeName(HeadMode::kInt8),
      "\" and \"", kCpuNumericsClass, "/", HeadModeName(HeadMode::kStored),
      "\""));
}

}  // namespace

StageHost::StageHost(const Options& options,
                     std::shared_ptr<const ModelSource> source,
                     LinkFactory make_links, Clock* clock)
    : options_(options),
      source_(std::move(source)),
      config_(source_->config()),
      make_links_(std::move(make_links)),
      clock_(clock),
      pool_(options.placement),
      jobs_(kWaitingLoadsMax) {
  loader_ = std::thread([this] { LoaderMain(); });
}

StageHost::~StageHost() {
  Shutdown(absl::UnavailableError("the worker is shutting down"));
  loader_.join();
}

absl::Status StageHost::Load(const StageRequest& request,
                             std::shared_ptr<LoadObserver> observer) {
  HeadMode head_mode;
  RETURN_IF_ERROR(Check(request, &head_mode));
  RETURN_IF_ERROR(CheckMemory(request, head_mode));
  std::shared_ptr<Session> old;
  {
    absl::MutexLock lock(&mu_);
    RETURN_IF_ERROR(shutdown_);
    if (request.epoch <= epoch_) {
      return absl::AbortedError(absl::StrCat(
          "epoch ", request.epoch, " is stale; this worker is at ", epoch_));
    }
    // Under the lock, so that jobs queue in the order of their epochs.
    if (!jobs_.TryPush(Job{request, head_mode, std::move(observer)})) {
      return absl::ResourceExhaustedError(absl::StrCat(
          kWaitingLoadsMax, " loads wait already, which is the most"));
    }
    epoch_ = request.epoch;
    old = session_;
  }
  if (old != nullptr) {
    old->mailbox->Abort(absl::AbortedError(absl::StrCat(
        "epoch ", request.epoch, " has replaced epoch ", old->limits.epoch)));
  }
  return absl::OkStatus();
}

absl::Status StageHost::CheckRequest(const StageRequest& request) const {
  HeadMode head_mode;
  RETURN_IF_ERROR(Check(request, &head_mode));
  return CheckMemory(request, head_mode);
}

absl::Status StageHost::Check(const StageRequest& request,
                              HeadMode* head_mode) const {
  if (request.model != options_.model_name) {
    return absl::NotFoundError(
        absl::StrCat("this worker has no file for model \"", request.model,
                     "\"; it has \"", options_.model_name, "\""));
  }
  if (request.model_fingerprint != source_->fingerprint()) {
    return absl::FailedPreconditionError(absl::StrCat(
        "this worker's file of model \"", request.model,
        "\" is another one: its fingerprint is ",
        absl::Hex(source_->fingerprint(), absl::kZeroPad16), ", not ",
        absl::Hex(request.model_fingerprint, absl::kZeroPad16)));
  }
  RETURN_IF_ERROR(CheckNumerics(request.numerics_id, head_mode));
  if (request.epoch < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("epoch ", request.epoch, " is below 1"));
  }
  if (request.pipeline_id.empty()) {
    return absl::InvalidArgumentError("the pipeline id is empty");
  }
  if (request.layer_begin < 0 || request.layer_begin >= request.layer_end ||
      request.layer_end > config_.n_layers) {
    return absl::InvalidArgumentError(
        absl::StrCat("layers [", request.layer_begin, ", ", request.layer_end,
                     ") are none of the model's ", config_.n_layers));
  }
  if (request.stage_count < 1 || request.stage_index < 0 ||
      request.stage_index >= request.stage_count) {
    return absl::InvalidArgumentError(
        absl::StrCat("stage ", request.stage_index, " of ", request.stage_count,
                     " stages cannot be"));
  }
  const StageRange range = RangeOf(request);
  if (range.has_embedding != (request.layer_begin == 0) ||
      range.has_head != (request.layer_end == config_.n_layers)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "stage ", request.stage_index, " of ", request.stage_count,
        " cannot have layers [", request.layer_begin, ", ", request.layer_end,
        ") of ", config_.n_layers,
        ": the first stage begins with the first layer, the last one ends "
        "with the last"));
  }
  if (range.has_head != request.next_stage_address.empty()) {
    return absl::InvalidArgumentError(
        range.has_head
            ? "the last stage was given the address of a next one"
            : "a stage before the last needs the address of the next one");
  }
  if (!request.first_stage_address.empty() &&
      (range.has_embedding || !range.has_head)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "stage ", request.stage_index, " of ", request.stage_count,
        " was given the address of the first one, which only the last of "
        "several stages sends to"));
  }
  if (request.keeps_boundary && range.has_head) {
    return absl::InvalidArgumentError(
        "the last stage was asked to keep what it sends to the next one");
  }
  if (request.kv_block_count < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("a KV pool of ", request.kv_block_count, " blocks"));
  }
  if (request.max_step_tokens < 1 || request.max_step_tokens > kStepTokensMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("max_step_tokens is ", request.max_step_tokens,
                     "; it must be in [1, ", kStepTokensMax, "]"));
  }
  return absl::OkStatus();
}

absl::Status StageHost::CheckMemory(const StageRequest& request,
                                    HeadMode head_mode) const {
  // The same sum that the coordinator makes when it places stages.
  ASSIGN_OR_RETURN(const DenseTensor head, source_->FindHead());
  const StageCost cost =
      CostOf(config_, RangeOf(request), head_mode == HeadMode::kInt8,
             head.row_bytes(), kKvBlockSize,
             {BlockColumns(options_.packing), BlockBytes(options_.packing)});
  // kv_block_bytes is below 2^31 for any model of this reader's limits, so the
  // product fits.
  const int64_t kv_bytes =
      (cost.kv_block_bytes + (request.keeps_boundary
                                  ? BoundaryBlockBytes(config_, kKvBlockSize)
                                  : 0)) *
      request.kv_block_count;
  if (cost.weight_bytes + kv_bytes > options_.memory_bytes) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "layers [", request.layer_begin, ", ", request.layer_end, ") need ",
        cost.weight_bytes, " bytes of weights and ", kv_bytes, " bytes for ",
        request.kv_block_count, " KV blocks, ",
        cost.weight_bytes + kv_bytes - options_.memory_bytes, " more than the ",
        options_.memory_bytes,
        " this worker has; use more stages, or give it --memory_bytes"));
  }
  return absl::OkStatus();
}

absl::StatusOr<StageHost::Plans> StageHost::plans() const {
  absl::MutexLock lock(&mu_);
  RETURN_IF_ERROR(shutdown_);
  if (session_ == nullptr) {
    return absl::FailedPreconditionError(
        "no stage is loaded on this worker; call LoadStage first");
  }
  return Plans{session_->mailbox, session_->limits};
}

absl::StatusOr<absl::optional<Inboxes>> StageHost::InboxesOf(
    absl::string_view model, absl::string_view pipeline_id,
    int64_t epoch) const {
  absl::MutexLock lock(&mu_);
  RETURN_IF_ERROR(shutdown_);
  if (epoch < epoch_) return absl::optional<Inboxes>();
  if (session_ == nullptr || epoch != session_->limits.epoch) {
    return absl::AbortedError(
        absl::StrCat("what another stage sent in epoch ", epoch,
                     " came before this worker had loaded its stage for it"));
  }
  if (model != session_->limits.model ||
      pipeline_id != session_->limits.pipeline_id) {
    return absl::FailedPreconditionError(absl::StrCat(
        "another stage sent for model \"", model, "\", pipeline \"",
        pipeline_id, "\"; this worker serves \"", session_->limits.model,
        "\" in \"", session_->limits.pipeline_id, "\""));
  }
  return absl::make_optional(session_->links.in);
}

void StageHost::LoaderMain() {
  Job job;
  while (jobs_.Pop(&job)) {
    absl::StatusOr<LoadedStage> loaded = RunJob(job);
    const StageRequest& r = job.request;
    if (loaded.ok()) {
      LOG(INFO) << "event=stage_loaded pipeline=" << r.pipeline_id
                << " epoch=" << r.epoch << " layers=" << r.layer_begin << "-"
                << r.layer_end << " numerics_id=" << r.numerics_id
                << " weight_bytes=" << loaded->weight_bytes
                << " kv_bytes=" << loaded->kv_bytes;
    } else {
      LOG(WARNING) << "event=stage_load_failed pipeline=" << r.pipeline_id
                   << " epoch=" << r.epoch << " status=\""
                   << loaded.status().ToString() << "\"";
    }
    job.observer->OnLoaded(std::move(loaded));
    job.observer.reset();
  }
  absl::Status status;
  {
    absl::MutexLock lock(&mu_);
    status = shutdown_;
  }
  EndSession(status);
}

absl::StatusOr<LoadedStage> StageHost::RunJob(const Job& job) {
  const StageRequest& r = job.request;
  RETURN_IF_ERROR(StillWanted(job));
  EndSession(absl::AbortedError(
      absl::StrCat("epoch ", r.epoch, " has replaced this one")));
  bool kept_kv = false;
  const absl::Status prepared = PrepareStage(job, &kept_kv);
  if (!prepared.ok()) {
    // Says why it was cancelled, if it was.
    RETURN_IF_ERROR(StillWanted(job));
    return prepared;
  }

  auto session = std::make_shared<Session>();
  const StageRange range = RangeOf(r);
  session->limits = {
      r.model,          r.pipeline_id,      r.epoch,
      r.numerics_id,    config_.vocab_size, config_.context_length,
      r.kv_block_count, r.max_step_tokens,  range.has_head,
      r.stage_count};
  StageLinks& links = session->links;
  ASSIGN_OR_RETURN(links.out, make_links_(r, config_.hidden_size));
  links.index = r.stage_index;
  if (!range.has_embedding) {
    HiddenStatesInbox::Options options;
    options.hidden_size = config_.hidden_size;
    options.max_step_tokens = r.max_step_tokens;
    options.waiting_steps_max = options_.waiting_steps_max;
    links.in.hidden = std::make_shared<HiddenStatesInbox>(options);
  } else if (!range.has_head) {
    SampledTokensInbox::Options options;
    options.vocab_size = config_.vocab_size;
    options.max_step_tokens = r.max_step_tokens;
    options.waiting_steps_max = kWaitingPlansMax;
    links.in.tokens = std::make_shared<SampledTokensInbox>(options);
  }
  session->mailbox = std::make_shared<StepMailbox>(
      kWaitingPlansMax,
      [links](const absl::Status& status) { links.Close(status); });

  // Under the lock, so that a newer epoch's Load() either sees the session and
  // ends it, or is seen here.
  absl::Status wanted = StillWanted(job);
  if (wanted.ok()) {
    absl::MutexLock lock(&mu_);
    if (epoch_ == r.epoch && shutdown_.ok()) {
      session->runner = std::make_unique<Runner>(
          options_.runner, stage_.get(), kv_.get(), &pool_, session->mailbox,
          links, clock_, &finished_steps_);
      session_ = session;
      return LoadedStage{weights_->bytes,
                         static_cast<int64_t>(kv_->pool_bytes()), kept_kv};
    }
  }
  if (wanted.ok()) wanted = StillWanted(job);
  links.Close(wanted);
  return wanted;
}

// What is there already is used again: a new epoch of the same stage costs
// nothing but the connection.
absl::Status StageHost::PrepareStage(const Job& job, bool* kept_kv) {
  const StageRequest& r = job.request;
  const StageSpec spec = {RangeOf(r), job.head_mode, options_.packing};
  if (weights_ == nullptr || !(weights_->spec == spec)) {
    stage_.reset();
    kv_.reset();
    weights_.reset();
    ASSIGN_OR_RETURN(weights_,
                     LoadStageWeights(
                         source_, spec, &pool_,
                         [&job](int64_t done, int64_t total) {
                           job.observer->OnProgress(done, total);
                         },
                         [this, &job] { return !StillWanted(job).ok(); }));
  }
  const int boundary_size = r.keeps_boundary ? config_.hidden_size : 0;
  if (kv_ == nullptr || kv_->shape().n_blocks != r.kv_block_count ||
      kv_->shape().boundary_size != boundary_size) {
    stage_.reset();
    kv_.reset();
    kv_epochs_.clear();
    ASSIGN_OR_RETURN(
        kv_, KvCache::Create({r.layer_end - r.layer_begin, config_.n_kv_heads,
                              config_.head_dim, r.kv_block_count,
                              config_.context_length, boundary_size},
                             NodesOf(options_.placement)));
  }
  *kept_kv = std::find(kv_epochs_.begin(), kv_epochs_.end(), r.kept_epoch) !=
             kv_epochs_.end();
  if (!*kept_kv) {
    kv_->Clear();
    kv_epochs_.clear();
  }
  if (kv_epochs_.size() >= kKvEpochsMax) kv_epochs_.erase(kv_epochs_.begin());
  kv_epochs_.push_back(r.epoch);
  kv_extension_count_ = kv_->extension_count();
  if (stage_ == nullptr || stage_step_tokens_ != r.max_step_tokens) {
    stage_ =
        std::make_unique<Stage>(weights_, kv_.get(), &pool_,
                                &KernelsFor(options_.isa), r.max_step_tokens);
    stage_->set_progress(&progress_);
    stage_step_tokens_ = r.max_step_tokens;
  }
  return absl::OkStatus();
}

void StageHost::EndSession(const absl::Status& status) {
  std::shared_ptr<Session> session;
  {
    absl::MutexLock lock(&mu_);
    session = std::move(session_);
    session_ = nullptr;
  }
  if (session == nullptr) return;
  session->mailbox->Abort(status);
  session->runner.reset();
  // What other epochs left is not what it holds any more.
  if (kv_->extension_count() != kv_extension_count_) {
    kv_epochs_ = {session->limits.epoch};
  }
  ++progress_;
  // Streams of neighbours that outlived the stream of plans end here.
  session->links.Close(status);
}

absl::Status StageHost::StillWanted(const Job& job) const {
  {
    absl::MutexLock lock(&mu_);
    RETURN_IF_ERROR(shutdown_);
    if (epoch_ > job.request.epoch) {
      return absl::AbortedError(absl::StrCat(
          "epoch ", epoch_, " has replaced epoch ", job.request.epoch));
    }
  }
  if (job.observer->IsCancelled()) {
    return absl::CancelledError("nobody waits for this load any more");
  }
  return absl::OkStatus();
}

void StageHost::Shutdown(absl::Status status) {
  CHECK(!status.ok());
  std::shared_ptr<Session> session;
  {
    absl::MutexLock lock(&mu_);
    if (!shutdown_.ok()) return;
    shutdown_ = status;
    session = session_;
  }
  jobs_.Close();
  if (session != nullptr) session->mailbox->Abort(std::move(status));
}

}  // namespace tern
