#include "coordinator/engine.h"

#include <pthread.h>

#include <algorithm>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "coordinator/weight_peers.h"
#include "util/logging.h"

namespace tern {
namespace {

// A fake clock tells nobody that it moved, and a wait this short is no load.
constexpr absl::Duration kLongestNap = absl::Milliseconds(50);

// Between attempts to form a pipeline, doubling with each failure in a row.
constexpr absl::Duration kFirstRetry = absl::Milliseconds(100);
constexpr absl::Duration kLongestRetry = absl::Seconds(5);

// Room in the mailbox beyond what requests can need, for results, progress and
// the tasks that may be refused.
constexpr size_t kMailboxSlack = 4096;

// Pipelines that `max_requests` makes room for by itself.
constexpr int kPipelinesForeseen = 64;

int MaxRequests(const Engine::Options& options) {
  return options.max_requests > 0
             ? options.max_requests
             : options.scheduler.max_waiting +
                   kPipelinesForeseen * options.scheduler.max_sequences;
}

}  // namespace

// Of each sequence there are at most two tasks in the mailbox, its request's
// Submit and its Cancel.
Engine::Engine(Options options, PipelineFactory factory, Clock* clock)
    : options_(std::move(options)),
      last_epoch_(options_.last_epoch != nullptr
                      ? options_.last_epoch
                      : std::make_shared<std::atomic<int64_t>>(0)),
      factory_(std::move(factory)),
      clock_(clock),
      mailbox_(std::make_shared<Mailbox>(2 * MaxRequests(options_) +
                                         2 * kMailboxSlack)),
      mailbox_soft_capacity_(2 * MaxRequests(options_) + kMailboxSlack),
      max_requests_(MaxRequests(options_)),
      scheduler_(options_.scheduler),
      cluster_(ClusterOptionsOf(options_)),
      now_(clock->Now()),
      last_loss_(now_) {
  absl::MutexLock lock(&shutdown_mu_);
  thread_ = std::thread([this] { Run(); });
}

Engine::~Engine() { Shutdown(); }

absl::Status Engine::ShuttingDown() const {
  return absl::UnavailableError(
      absl::StrCat(options_.model,
                   " is not served any more: the coordinator is shutting down, "
                   "or has unloaded the model"));
}

bool Engine::Post(Task task, bool may_refuse) {
  if (may_refuse && mailbox_->size() >= mailbox_soft_capacity_) return false;
  if (mailbox_->TryPush(std::move(task))) return true;
  // What may not be refused is bounded by the number of requests and of steps
  // in flight.
  CHECK(may_refuse || mailbox_->closed()) << "the engine's mailbox is full";
  return false;
}

void Engine::Submit(int64_t ticket, Request request) {
  CHECK(!request.outputs.empty());
  const std::vector<std::shared_ptr<TokenStream>> outputs = request.outputs;
  const int n_samples = static_cast<int>(outputs.size());
  const bool is_restored = request.restored.has_value();
  if ((n_requests_ += n_samples) > max_requests_ && !is_restored) {
    n_requests_ -= n_samples;
    SequenceEnd end;
    end.status = absl::ResourceExhaustedError(
        absl::StrCat(max_requests_,
                     " requests are in progress, which is this cluster's "
                     "limit; try again later"));
    end.retry_after = absl::ZeroDuration();
    for (const auto& output : outputs) output->End(end);
    return;
  }
  if (!Post(
          [this, ticket, request = std::move(request)]() mutable {
            Admit(ticket, std::move(request));
          },
          /*may_refuse=*/false)) {
    n_requests_ -= n_samples;
    for (const auto& output : outputs) {
      if (output != nullptr) output->End({ShuttingDown()});
    }
  }
}

void Engine::Cancel(int64_t ticket) {
  Post(
      [this, ticket] {
        if (live_.count(ticket) == 0) return;
        scheduler_.Abort(ticket);
        Forget(ticket);
      },
      /*may_refuse=*/false);
}

void Engine::Abort(std::string principal, std::string request_id,
                   std::function<void(absl::Status)> done) {
  auto task =
      [this, name = std::make_pair(std::move(principal), std::move(request_id)),
       done] {
        auto it = tickets_.find(name);
        if (it == tickets_.end()) {
          done(absl::NotFoundError(absl::StrCat("no request ", name.second,
                                                " of yours is in progress")));
          return;
        }
        std::vector<std::shared_ptr<TokenStream>> outputs;
        for (const int64_t ticket : std::set<int64_t>(it->second)) {
          outputs.push_back(live_.at(ticket).output);
          scheduler_.Abort(ticket);
          Forget(ticket);
        }
        for (const auto& output : outputs) {
          output->End({absl::CancelledError(
              absl::StrCat("request ", name.second, " was aborted"))});
        }
        done(absl::OkStatus());
      };
  if (!Post(std::move(task), /*may_refuse=*/true)) {
    done(absl::UnavailableError("the coordinator is busy or shutting down"));
  }
}

void Engine::Inspect(std::function<void(absl::StatusOr<Snapshot>)> done) {
  if (!Post([this, done] { done(MakeSnapshot()); }, /*may_refuse=*/true)) {
    done(absl::UnavailableError("the coordinator is busy or shutting down"));
  }
}

void Engine::Poke() {
  Post([] {}, /*may_refuse=*/true);
}

void Engine::Shutdown() {
  absl::MutexLock lock(&shutdown_mu_);
  if (!thread_.joinable()) return;
  // Closing after the push: whatever was accepted is still done, in order.
  mailbox_->Push([this] { stopped_ = true; });
  mailbox_->Close();
  thread_.join();
}

void Engine::Run() {
  pthread_setname_np(pthread_self(), "engine");  // for top and tern bench serve
  std::vector<Task> tasks;
  while (!stopped_) {
    tasks.clear();
    mailbox_->PopAll(&tasks, UntilNextDuty());
    now_ = clock_->Now();
    for (Task& task : tasks) task();
    if (!stopped_) Turn();
  }
  // Tasks that were accepted after the stop still have someone waiting.
  Stop();
  tasks.clear();
  mailbox_->PopAll(&tasks, absl::ZeroDuration());
  for (Task& task : tasks) task();
  Stop();
}

void Engine::Turn() {
  for (const std::string& worker_id : cluster_.Expire(now_)) {
    LOG(WARNING) << "event=worker_lost worker=" << worker_id
                 << " reason=lease_expired";
    LosePipelineOf(
        worker_id,
        absl::UnavailableError(absl::StrCat(
            "worker ", worker_id, " has been silent for its lease of ",
            absl::FormatDuration(options_.cluster.lease_duration))));
  }
  NoteWhoOwes();
  LoseHungPipelines();
  DrainPipelines();
  if (has_released_) ForgetReleased();
  RecutPipelines();
  Deliver(scheduler_.ExpireDeadlines(now_));
  if (now_ - last_loss_ >= options_.unavailable_after) {
    if (n_ready_ == 0 && scheduler_.n_sequences() > 0) EndAll(WhyNotReady());
    if (scheduler_.has_unplaceable()) Deliver(scheduler_.EndUnplaceable());
  }
  if (now_ >= retry_at_) FormPipelines();
  for (auto& [index, member] : pipelines_) {
    if (!member.ready) continue;
    const Lane& lane = *scheduler_.lane(index);
    if (lane.n_in_flight() == 0) member.owes_since = now_;
    while (std::optional<StepPlan> plan = scheduler_.Schedule(index)) {
      member.pipeline->Send(*plan);
    }
  }
}

void Engine::Stop() {
  EndAll(ShuttingDown());
  while (!pipelines_.empty()) {
    LosePipeline(pipelines_.begin()->first, ShuttingDown());
  }
}

// How long to wait for a task before leases, deadlines or retries need a look.
absl::Duration Engine::UntilNextDuty() const {
  absl::Time next = std::min(cluster_.NextExpiry(), scheduler_.next_deadline());
  if (MayFormPipeline()) next = std::min(next, std::max(retry_at_, now_));
  for (const auto& [index, member] : pipelines_) {
    next = std::min(next, HangsAt(index, member));
  }
  return std::max(absl::Milliseconds(1), std::min(next - now_, kLongestNap));
}

void Engine::Restore(int64_t ticket, Request request) {
  const Name name(request.principal, request.request_id);
  request.parameters.tenant = request.principal;
  const Request::Restored& restored = *request.restored;
  for (size_t i = 0; i < request.outputs.size(); ++i) {
    const int64_t id = ticket + static_cast<int64_t>(i);
    if (request.outputs[i] == nullptr) {
      --n_requests_;
      continue;
    }
    scheduler_.Restore(id, request.parameters, static_cast<int>(i),
                       restored.tokens[i], restored.n_scored);
    live_[id] = {name, request.outputs[i], restored.numerics_id};
    tickets_[name].insert(id);
  }
}

std::string Engine::NumericsId() const {
  return absl::StrCat(cluster_.numerics_class(), "/", options_.head_mode);
}

void Engine::EndOthersNumerics() {
  std::vector<int64_t> tickets;
  for (const auto& [ticket, live] : live_) {
    if (!live.numerics_id.empty() && live.numerics_id != numerics_id_) {
      tickets.push_back(ticket);
    }
  }
  if (options_.allow_numerics_change) {
    for (const int64_t ticket : tickets) {
      Live& live = live_.at(ticket);
      LOG(WARNING) << "event=numerics_changed request_id=" << live.name.second
                   << " from=" << live.numerics_id << " to=" << numerics_id_;
      live.numerics_id = numerics_id_;
      live.output->ChangeNumerics(numerics_id_);
    }
    return;
  }
  for (const int64_t ticket : tickets) {
    const Live live = live_.at(ticket);
    scheduler_.Abort(ticket);
    Forget(ticket);
    live.output->End({absl::FailedPreconditionError(absl::StrCat(
        "request ", live.name.second, " was begun with the arithmetic ",
        live.numerics_id, " and the cluster now has ", numerics_id_,
        ", which would go on with other tokens: ask again, or bring workers "
        "and --head_mode back as they were, or start the coordinator with "
        "--allow_numerics_change"))});
  }
}

void Engine::Admit(int64_t ticket, Request request) {
  if (request.restored.has_value() && !stopped_) {
    Restore(ticket, std::move(request));
    return;
  }
  const std::vector<std::shared_ptr<TokenStream>> outputs =
      std::move(request.outputs);
  const int n_samples = static_cast<int>(outputs.size());
  const auto refuse = [&](absl::Status status,
                          std::optional<absl::Duration> retry_after = {}) {
    n_requests_ -= n_samples;
    SequenceEnd end;
    end.status = std::move(status);
    end.retry_after = retry_after;
    for (const auto& output : outputs) {
      if (output != nullptr) output->End(end);
    }
  };
  const Name name(request.principal, request.request_id);
  if (tickets_.count(name) > 0) {
    refuse(absl::AlreadyExistsError(absl::StrCat(
        "request_id ", request.request_id,
        " belongs to a request still in progress; choose another, or wait")));
    return;
  }
  if (stopped_) {
    refuse(ShuttingDown());
    return;
  }
  // Those that come shortly after a loss wait with those that were there.
  const bool may_wait =
      has_served_ && now_ - last_loss_ < options_.unavailable_after;
  if (n_ready_ == 0 && !may_wait) {
    refuse(WhyNotReady());
    return;
  }
  request.parameters.tenant = request.principal;
  std::optional<absl::Duration> retry_after;
  if (!scheduler_.HasRoomFor(request.parameters, n_samples)) {
    retry_after = scheduler_.ExpectedWait(request.parameters);
  }
  absl::Status added =
      scheduler_.Add(ticket, std::move(request.parameters), n_samples, now_);
  if (!added.ok()) {
    refuse(std::move(added), retry_after);
    return;
  }
  std::set<int64_t>& tickets = tickets_[name];
  const std::string numerics_id = NumericsId();
  for (int i = 0; i < n_samples; ++i) {
    live_[ticket + i] = {name, outputs[i], numerics_id};
    tickets.insert(ticket + i);
  }
  for (const auto& output : outputs) output->Admit(numerics_id);
}

void Engine::Forget(int64_t ticket) {
  auto it = live_.find(ticket);
  CHECK(it != live_.end());
  const auto named = tickets_.find(it->second.name);
  named->second.erase(ticket);
  if (named->second.empty()) tickets_.erase(named);
  live_.erase(it);
  --n_requests_;
}

void Engine::Deliver(std::vector<SequenceEvent>&& events) {
  for (SequenceEvent& event : events) {
    const std::shared_ptr<TokenStream> output = live_.at(event.id).output;
    if (!event.prompt_logprobs.empty()) {
      output->PushPrompt(std::move(event.prompt_logprobs));
      continue;
    }
    if (!event.ended) {
      output->Push(event.token, std::move(event.logprobs));
      continue;
    }
    // The name is free before the answer's reader can know that it ended.
    Forget(event.id);
    SequenceEnd end = {std::move(event.status), event.reason,
                       event.stop_token_id, event.n_prompt_cached};
    if (event.token >= 0) {
      output->PushAndEnd(event.token, std::move(end),
                         std::move(event.logprobs));
    } else {
      output->End(std::move(end));
    }
  }
}

void Engine::EndAll(const absl::Status& status) {
  while (!live_.empty()) {
    const int64_t ticket = live_.begin()->first;
    const std::shared_ptr<TokenStream> output = live_.begin()->second.output;
    scheduler_.Abort(ticket);
    Forget(ticket);
    output->End({status});
  }
}

int Engine::PipelineOf(const std::string& worker_id) const {
  for (const auto& [index, member] : pipelines_) {
    for (const StageStatus& stage : member.stages) {
      if (stage.placed.worker_id == worker_id) return index;
    }
  }
  return -1;
}

// Those that have no stage; who failed to load one least often comes first.
std::vector<const Worker*> Engine::FreeWorkers() const {
  std::vector<const Worker*> free;
  for (const Worker* worker :
       cluster_.Available(options_.model, !options_.content_id.empty())) {
    if (PipelineOf(worker->registration.worker_id) < 0) free.push_back(worker);
  }
  const auto n_failures = [this](const Worker* worker) {
    const auto it = load_failures_.find(worker->registration.worker_id);
    return it == load_failures_.end() ? 0 : it->second;
  };
  std::stable_sort(free.begin(), free.end(),
                   [&](const Worker* a, const Worker* b) {
                     return n_failures(a) < n_failures(b);
                   });
  return free;
}

bool Engine::MayFormPipeline() const {
  return CanPlace(options_.config, options_.placement,
                  Candidates(FreeWorkers()));
}

// Who failed to load more often than others is asked when these cannot do
// without, or would be given again what they could not load.
Placements Engine::PlaceFree() const {
  const std::vector<const Worker*> free = FreeWorkers();
  const auto n_failures = [&](size_t i) {
    const auto it = load_failures_.find(free[i]->registration.worker_id);
    return it == load_failures_.end() ? 0 : it->second;
  };
  Placements placements;
  for (size_t n = 1; n <= free.size(); ++n) {
    if (n < free.size() && n_failures(n) == n_failures(n - 1)) continue;
    Placements of_these =
        PlacePipelines(options_.config, options_.placement,
                       Candidates(absl::MakeConstSpan(free).first(n)));
    const bool is_good = !of_these.pipelines.empty() && of_these.n_refused == 0;
    if (is_good || placements.pipelines.empty()) {
      placements = std::move(of_these);
    }
    if (is_good) break;
  }
  return placements;
}

void Engine::FormPipelines() {
  while (MayFormPipeline()) {
    Placements placements = PlaceFree();
    if (placements.pipelines.empty()) {
      last_failure_ = placements.why_none;
      retry_at_ = now_ + kLongestRetry;
      LOG(WARNING) << "event=pipeline_not_placed status=" << last_failure_;
      return;
    }
    for (Placement& placement : placements.pipelines) {
      FormPipeline(std::move(placement));
    }
  }
}

void Engine::FormPipeline(Placement placement) {
  int index = 0;
  while (pipelines_.count(index) > 0) ++index;
  Member& member = pipelines_[index];
  member.id = absl::StrCat(options_.model, "/", index);
  member.epoch = ++*last_epoch_;
  numerics_id_ = NumericsId();
  if (options_.on_epoch) options_.on_epoch(member.epoch);
  EndOthersNumerics();
  Pipeline::Spec spec;
  spec.kept_epochs = AskForKept(&placement, &member);
  member.kv_block_count = placement.kv_block_count;
  member.keeps_boundary = placement.keeps_boundary;
  member.numerics_id = numerics_id_;
  member.looks_ahead = true;
  for (const PlacedStage& stage : placement.stages) {
    const Worker* worker = cluster_.Find(stage.worker_id);
    CHECK(worker != nullptr);  // It is free.
    if (!worker->registration.supports_step_token_source) {
      member.looks_ahead = false;
    }
    member.stages.push_back({stage, {}, 0});
    member.incarnations.push_back(worker->registration.incarnation);
    LOG(INFO) << "event=stage_placed pipeline=" << member.id
              << " epoch=" << member.epoch << " worker=" << stage.worker_id
              << " layers=" << stage.range.layer_begin << "-"
              << stage.range.layer_end
              << " kv_blocks=" << member.kv_block_count;
  }
  spec.model = options_.model;
  spec.pipeline_id = member.id;
  spec.epoch = member.epoch;
  spec.model_fingerprint = options_.model_fingerprint;
  spec.content_id = options_.content_id;
  if (!spec.content_id.empty()) {
    spec.weight_peers = WeightPeersOf(cluster_, options_.model);
  }
  spec.numerics_id = numerics_id_;
  spec.vocab_size = options_.config.vocab_size;
  spec.kv_block_size = options_.placement.kv_block_size;
  spec.max_step_tokens = options_.scheduler.max_step_tokens;
  spec.looks_ahead = member.looks_ahead;
  spec.placement = std::move(placement);
  member.pipeline = factory_(std::move(spec), ListenerOf(index, member.epoch));
}

// What a pipeline says of itself goes through the mailbox, and is of no
// interest once it is given up.
Pipeline::Listener Engine::ListenerOf(int index, int64_t epoch) {
  const auto post = [this, index, epoch, mailbox = mailbox_](Task task) {
    Task checked = [this, index, epoch, task = std::move(task)] {
      const auto member = pipelines_.find(index);
      if (member != pipelines_.end() && member->second.epoch == epoch) task();
    };
    const bool pushed = mailbox->TryPush(std::move(checked));
    CHECK(pushed || mailbox->closed()) << "the engine's mailbox is full";
  };
  Pipeline::Listener listener;
  listener.on_progress = [this, index, post, mailbox = mailbox_,
                          soft_capacity = mailbox_soft_capacity_](
                             int stage, int64_t loaded, int64_t total) {
    if (mailbox->size() >= soft_capacity) return;  // Only for people.
    post([this, index, stage, loaded, total] {
      pipelines_.at(index).stages[stage].load_progress =
          total > 0 ? static_cast<double>(loaded) / total : 0;
    });
  };
  listener.on_ready = [this, index,
                       post](std::vector<Pipeline::StageInfo> infos) {
    post([this, index, infos = std::move(infos)]() mutable {
      OnPipelineReady(index, std::move(infos));
    });
  };
  listener.on_result = [this, index, post](StepResult result) {
    post([this, index, result = std::move(result)] {
      events_.clear();
      const absl::Status status = scheduler_.Complete(index, result, &events_);
      if (!status.ok()) {
        const Member& member = pipelines_.at(index);
        OnStageLost(index, static_cast<int>(member.stages.size()) - 1, status);
        return;
      }
      pipelines_.at(index).owes_since = now_;
      has_answered_ = true;
      Deliver(std::move(events_));
    });
  };
  listener.on_lost = [this, index, post](int stage, absl::Status status) {
    post([this, index, stage, status = std::move(status)] {
      OnStageLost(index, stage, status);
    });
  };
  return listener;
}

void Engine::OnPipelineReady(int index,
                             std::vector<Pipeline::StageInfo> infos) {
  Member& member = pipelines_.at(index);
  CHECK(infos.size() == member.stages.size());
  for (size_t i = 0; i < infos.size(); ++i) {
    member.stages[i].info = infos[i];
    member.stages[i].load_progress = 1;
    load_failures_.erase(member.stages[i].placed.worker_id);
    cluster_.SetHolds(member.stages[i].placed.worker_id,
                      member.stages[i].placed.range);
  }
  member.ready = true;
  member.ready_since = now_;
  has_served_ = true;
  n_failures_ = 0;
  last_failure_ = absl::OkStatus();
  LOG(INFO) << "event=pipeline_ready pipeline=" << member.id
            << " epoch=" << member.epoch
            << " sequences_waiting=" << scheduler_.n_waiting();
  Scheduler::Capacity capacity;
  capacity.n_blocks = member.kv_block_count;
  capacity.block_size = options_.placement.kv_block_size;
  capacity.n_micro_batches = static_cast<int>(member.stages.size());
  capacity.looks_ahead = member.looks_ahead;
  Deliver(
      scheduler_.StartPipeline(index, capacity, RecoverKept(infos, &member)));
  if (++n_ready_ == 1 && options_.on_readiness) options_.on_readiness(true);
}

void Engine::OnStageLost(int index, int stage, const absl::Status& status) {
  const Member& member = pipelines_.at(index);
  const std::string worker_id = member.stages[stage].placed.worker_id;
  // A broken connection, or a server that stops, says that the worker may be
  // gone, which a heartbeat would disprove; any other status comes from a
  // worker that lives.
  if (absl::IsUnavailable(status) || absl::IsCancelled(status)) {
    cluster_.MarkUnreachable(worker_id);
  }
  if (!member.ready) {
    ++load_failures_[worker_id];
    cluster_.NoteRefused(worker_id, member.stages[stage].placed.range, status);
  }
  LosePipeline(index,
               absl::Status(status.code(),
                            absl::StrCat("stage ", stage, " on worker ",
                                         worker_id, ": ", status.message())));
}

void Engine::LosePipelineOf(const std::string& worker_id,
                            const absl::Status& why) {
  const int index = PipelineOf(worker_id);
  if (index >= 0) LosePipeline(index, why);
}

void Engine::LosePipeline(int index, const absl::Status& why) {
  const auto it = pipelines_.find(index);
  const bool was_ready = it->second.ready;
  LOG(WARNING) << "event=pipeline_lost pipeline=" << it->second.id
               << " epoch=" << it->second.epoch << " sequences="
               << (was_ready ? scheduler_.lane(index)->n_running() : 0)
               << " status=" << why;
  Member lost = std::move(it->second);
  pipelines_.erase(it);
  lost.pipeline.reset();
  last_failure_ = why;
  // The first attempt comes at once: another worker may be there.
  retry_at_ = now_;
  if (!was_ready) {
    const int doublings = std::min(n_failures_++, 10);
    retry_at_ += std::min(kLongestRetry, kFirstRetry * (1 << doublings));
    if (lost.kept.has_value()) kept_kvs_.Put(*std::move(lost.kept));
    return;
  }
  const bool owed = scheduler_.lane(index)->n_in_flight() > 0;
  if (has_answered_ || !owed) {
    last_loss_ = now_;
  } else {
    retry_at_ += kFirstRetry;  // The next one may be of as little use.
  }
  has_answered_ = false;
  KeepBlocks(lost, *scheduler_.StopPipeline(index));
  if (--n_ready_ == 0 && options_.on_readiness) options_.on_readiness(false);
}

}  // namespace tern
