// Who comes and who goes: what the engine does when workers register, send
// heartbeats, hang, leave, or are taken away.

#include <algorithm>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "coordinator/block_manager.h"
#include "coordinator/cluster_view.h"
#include "coordinator/engine.h"
#include "coordinator/kept_kv.h"
#include "coordinator/placement.h"
#include "util/logging.h"

namespace tern {
namespace {

// That may be missed in a row before another process may have a worker's id.
constexpr int kSuspiciousHeartbeats = 4;

// Often enough to tell a worker that hangs from one that computes.
absl::Duration HeartbeatInterval(const Engine::Options& options) {
  return std::min(options.cluster.lease_duration / 10,
                  options.hang_timeout / 4);
}

}  // namespace

ClusterView::Options Engine::ClusterOptionsOf(const Options& options) {
  ClusterView::Options cluster = options.cluster;
  cluster.suspect_after =
      std::min(cluster.lease_duration,
               kSuspiciousHeartbeats * HeartbeatInterval(options));
  return cluster;
}

void Engine::RegisterWorker(WorkerRegistration registration,
                            std::function<void(absl::StatusOr<Lease>)> done) {
  auto task = [this, registration = std::move(registration), done] {
    const std::string worker_id = registration.worker_id;
    const Worker* before = cluster_.Find(worker_id);
    const int64_t incarnation_before =
        before == nullptr ? 0 : before->registration.incarnation;
    const absl::StatusOr<int64_t> epoch =
        cluster_.Register(registration,
                          /*may_change_class=*/options_.allow_numerics_change ||
                              scheduler_.n_sequences() == 0,
                          now_);
    if (!epoch.ok()) {
      LOG(WARNING) << "event=worker_refused worker=" << worker_id
                   << " status=" << epoch.status();
      done(epoch.status());
      return;
    }
    LOG(INFO) << "event=worker_registered worker=" << worker_id
              << " address=" << registration.address
              << " numerics_class=" << registration.numerics_class
              << " lease_epoch=" << *epoch;
    // A new process knows nothing of the old one's stage.
    if (incarnation_before != registration.incarnation) {
      LosePipelineOf(worker_id, absl::UnavailableError(absl::StrCat(
                                    "worker ", worker_id, " was restarted")));
      load_failures_.erase(worker_id);
    }
    retry_at_ = now_;  // Someone new may be what was missing.
    Lease lease;
    lease.epoch = *epoch;
    lease.duration = options_.cluster.lease_duration;
    lease.heartbeat_interval = HeartbeatInterval(options_);
    done(lease);
  };
  if (!Post(std::move(task), /*may_refuse=*/true)) {
    done(absl::UnavailableError("the coordinator is busy or shutting down"));
  }
}

void Engine::SendHeartbeat(WorkerHeartbeat heartbeat,
                           std::function<void(absl::StatusOr<bool>)> done) {
  auto task = [this, heartbeat = std::move(heartbeat), done] {
    const Worker* before = cluster_.Find(heartbeat.worker_id);
    const bool was_slow = before != nullptr && before->slow;
    const absl::Status status = cluster_.Heartbeat(heartbeat, now_);
    if (!status.ok()) {
      done(status);
      return;
    }
    const Worker& worker = *cluster_.Find(heartbeat.worker_id);
    if (worker.slow != was_slow) {
      LOG(WARNING) << "event="
                   << (was_slow ? "worker_recovered" : "worker_slow")
                   << " worker=" << heartbeat.worker_id
                   << " slowdown=" << worker.slowdown;
    }
    const bool may_go =
        heartbeat.is_draining && PipelineOf(heartbeat.worker_id) < 0;
    if (may_go) cluster_.LetGo(heartbeat.worker_id);
    done(may_go);
  };
  if (!Post(std::move(task), /*may_refuse=*/true)) {
    done(absl::UnavailableError("the coordinator is busy or shutting down"));
  }
}

void Engine::ReleaseWorker(std::string worker_id) {
  Post(
      [this, worker_id] {
        has_released_ = cluster_.Release(worker_id) || has_released_;
      },
      /*may_refuse=*/true);
}

void Engine::SetCordoned(std::string worker_id, bool cordoned,
                         std::function<void(absl::Status)> done) {
  auto task = [this, worker_id, cordoned, done] {
    if (!cluster_.SetCordoned(worker_id, cordoned)) {
      done(absl::NotFoundError(absl::StrCat("no worker ", worker_id)));
      return;
    }
    LOG(INFO) << "event=worker_" << (cordoned ? "cordoned" : "uncordoned")
              << " worker=" << worker_id;
    retry_at_ = now_;
    done(absl::OkStatus());
  };
  if (!Post(std::move(task), /*may_refuse=*/true)) {
    done(absl::UnavailableError("the coordinator is busy or shutting down"));
  }
}

absl::Time Engine::HangsAt(int index, const Member& member) const {
  if (!member.ready) return absl::InfiniteFuture();
  const Lane& lane = *scheduler_.lane(index);
  if (lane.n_in_flight() == 0) return absl::InfiniteFuture();
  const Worker* worker =
      cluster_.Find(member.stages[member.owing_stage].placed.worker_id);
  // Without a lease it is lost anyway.
  if (worker == nullptr) return absl::InfiniteFuture();
  return std::max(member.owes_since, worker->last_progress) +
         std::max(options_.hang_timeout, 3 * lane.ExpectedTime());
}

// A stage that has just got its turn has not owed anything while those before
// it computed.
void Engine::NoteWhoOwes() {
  for (auto& [index, member] : pipelines_) {
    if (!member.ready) continue;
    const int stage = member.pipeline->SlowestStage();
    if (stage == member.owing_stage) continue;
    member.owing_stage = stage;
    member.owes_since = now_;
  }
}

void Engine::LoseHungPipelines() {
  std::vector<int> hung;
  for (const auto& [index, member] : pipelines_) {
    if (now_ >= HangsAt(index, member)) hung.push_back(index);
  }
  for (const int index : hung) {
    const Member& member = pipelines_.at(index);
    const int stage = member.owing_stage;
    const std::string worker_id = member.stages[stage].placed.worker_id;
    cluster_.MarkHung(worker_id);
    LOG(WARNING) << "event=worker_hung worker=" << worker_id;
    LosePipeline(
        index,
        absl::UnavailableError(absl::StrCat(
            "stage ", stage, " on worker ", worker_id,
            " has not answered, and the worker has computed nothing for ",
            absl::FormatDuration(
                now_ - std::max(member.owes_since,
                                cluster_.Find(worker_id)->last_progress)),
            ": it hangs, or cannot be reached by its neighbours")));
  }
}

bool Engine::IsDraining(const Member& member) const {
  return std::any_of(member.stages.begin(), member.stages.end(),
                     [this](const StageStatus& stage) {
                       const Worker* worker =
                           cluster_.Find(stage.placed.worker_id);
                       return worker != nullptr && worker->MustGo();
                     });
}

// Its sequences move by being replayed elsewhere, at once where another
// pipeline serves, or can when this one's other workers are free. A pipeline
// that nobody could take over from ends what it runs, and takes in nothing new.
bool Engine::MayLeave(int index, const Member& member) const {
  if (!member.ready || scheduler_.lane(index)->n_running() == 0) return true;
  bool other_loads = false;
  for (const auto& [other_index, other] : pipelines_) {
    if (other_index == index || IsDraining(other)) continue;
    if (other.ready) return true;
    other_loads = true;
  }
  if (other_loads || MayFormPipeline()) return false;
  std::vector<const Worker*> workers = FreeWorkers();
  for (const StageStatus& stage : member.stages) {
    const Worker* worker = cluster_.Find(stage.placed.worker_id);
    if (worker != nullptr && worker->IsAvailable()) workers.push_back(worker);
  }
  return CanPlace(options_.config, options_.placement, Candidates(workers));
}

void Engine::DrainPipelines() {
  std::vector<int> draining;
  for (const auto& [index, member] : pipelines_) {
    if (IsDraining(member)) draining.push_back(index);
  }
  for (const int index : draining) {
    const Member& member = pipelines_.at(index);
    if (member.ready) scheduler_.ClosePipeline(index);
    if (MayLeave(index, member)) {
      LosePipeline(index, absl::UnavailableError("a worker of it leaves"));
    }
  }
}

void Engine::ForgetReleased() {
  has_released_ = false;
  std::vector<std::string> gone;
  for (const auto& [id, worker] : cluster_.workers()) {
    if (!worker.released) continue;
    if (PipelineOf(id) < 0) {
      gone.push_back(id);
    } else {
      has_released_ = true;
    }
  }
  for (const std::string& id : gone) {
    cluster_.Forget(id);
    load_failures_.erase(id);
    LOG(INFO) << "event=worker_released worker=" << id;
  }
}

void Engine::RestoreKept(std::vector<KeptKv> kept) {
  Post(
      [this, kept = std::make_shared<std::vector<KeptKv>>(std::move(kept))] {
        for (KeptKv& each : *kept) kept_kvs_.Put(std::move(each));
      },
      /*may_refuse=*/false);
}

std::vector<KeptKv> Engine::TakeKept() {
  absl::MutexLock lock(&shutdown_mu_);
  CHECK(!thread_.joinable());
  return kept_kvs_.TakeAll();
}

std::vector<int64_t> Engine::AskForKept(Placement* placement, Member* member) {
  member->kept = kept_kvs_.Take(
      *placement, numerics_id_, [this](const std::string& worker_id) {
        const Worker* worker = cluster_.Find(worker_id);
        return worker == nullptr ? 0 : worker->registration.incarnation;
      });
  if (!member->kept.has_value()) return {};
  placement->kv_block_count = member->kept->blocks.n_blocks();
  placement->keeps_boundary = member->kept->keeps_boundary;
  std::vector<int64_t> epochs;
  for (const KeptKv::Stage& stage : member->kept->stages) {
    epochs.push_back(stage.epoch);
  }
  return epochs;
}

std::optional<BlockManager> Engine::RecoverKept(
    const std::vector<Pipeline::StageInfo>& infos, Member* member) const {
  if (!member->kept.has_value()) return std::nullopt;
  std::vector<char> has_kept;
  for (size_t i = 0; i < infos.size(); ++i) {
    has_kept.push_back(infos[i].kept_kv && member->kept->stages[i].epoch > 0);
  }
  LOG(INFO) << "event=kv_kept pipeline=" << member->id
            << " epoch=" << member->epoch
            << " stages=" << std::count(has_kept.begin(), has_kept.end(), true)
            << " of=" << has_kept.size()
            << " boundary=" << member->keeps_boundary
            << " blocks=" << member->kept->blocks.n_cached();
  std::optional<BlockManager> blocks =
      RecoverBlocks(*std::move(member->kept), has_kept);
  member->kept.reset();
  return blocks;
}

// For the pipeline that is formed in its place.
void Engine::KeepBlocks(const Member& member, BlockManager blocks) {
  KeptKv kept = {
      {}, member.numerics_id, member.keeps_boundary, std::move(blocks)};
  for (size_t i = 0; i < member.stages.size(); ++i) {
    const PlacedStage& placed = member.stages[i].placed;
    kept.stages.push_back(
        {placed.worker_id, member.incarnations[i], placed.range, member.epoch});
  }
  kept_kvs_.Put(std::move(kept));
}

}  // namespace tern
