#include "coordinator/worker_router.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "util/logging.h"

namespace tern {
namespace {

// Ids of workers that an operator may have taken out of service.
constexpr size_t kMaxCordoned = 4096;

// Looks after which a worker that its engine does not know has no route.
constexpr int kMissedMax = 2;

bool Contains(const ModelRegistry::Models& models,
              const std::shared_ptr<ModelInstance>& model) {
  return std::find(models.begin(), models.end(), model) != models.end();
}

absl::Status NoLease(const std::string& worker_id) {
  return absl::NotFoundError(
      absl::StrCat("worker ", worker_id, " holds no lease; register again"));
}

}  // namespace

WorkerRouter::WorkerRouter(const Options& options, ModelRegistry* models,
                           std::set<std::string> cordoned)
    : options_(options), models_(models), cordoned_(std::move(cordoned)) {
  thread_ = std::thread([this] { Main(); });
}

WorkerRouter::~WorkerRouter() {
  {
    absl::MutexLock lock(&mu_);
    stopping_ = true;
  }
  thread_.join();
}

std::vector<ModelWorkers> WorkerRouter::Assignments(
    const ModelRegistry::Models& models) const {
  const absl::Time now = absl::Now();
  std::vector<ModelWorkers> assignments;
  for (const auto& model : models) {
    ModelWorkers& out = assignments.emplace_back();
    out.name = model->name();
    out.can_be_fetched = model->content() != nullptr;
    out.n_stages = std::max(1, model->n_stages());
    const auto seen = seen_.find(model->name());
    if (seen != seen_.end()) {
      out.n_pipelines = seen->second.n_pipelines;
      out.is_stuck = out.n_pipelines == 0 &&
                     now - seen->second.last_pipeline >= options_.stuck_after;
    }
    for (const auto& [id, route] : routes_) {
      if (route.model.lock() == model) out.workers.push_back(route.worker);
    }
  }
  return assignments;
}

bool WorkerRouter::IsServed(const std::shared_ptr<ModelInstance>& model) const {
  return Contains(models_->All(), model);
}

void WorkerRouter::RegisterWorker(
    WorkerRegistration registration,
    std::function<void(absl::StatusOr<Engine::Lease>)> done) {
  const ModelRegistry::Models models = models_->All();
  if (models.empty()) {
    done(absl::UnavailableError(
        "this coordinator serves no model yet; load one with `tern models "
        "load`"));
    return;
  }
  std::shared_ptr<ModelInstance> chosen;
  {
    absl::MutexLock lock(&mu_);
    // It stays where it is while it is known there: a restart, or a lease that
    // ended. Elsewhere it might be taken for another of its name.
    const auto known = routes_.find(registration.worker_id);
    if (known != routes_.end()) {
      const auto before = known->second.model.lock();
      if (Contains(models, before)) chosen = before;
    }
    if (chosen == nullptr) {
      AssignableWorker worker;
      worker.models = registration.models;
      worker.can_fetch = registration.can_fetch_weights;
      chosen = models[ChooseModel(Assignments(models), worker)];
    }
    registration.cordoned = cordoned_.count(registration.worker_id) > 0;
    Route& route = routes_[registration.worker_id];
    route.model = chosen;
    route.worker.id = registration.worker_id;
    route.worker.models = registration.models;
    route.worker.can_fetch = registration.can_fetch_weights;
    route.worker.available = !registration.cordoned;
    route.worker.has_stage = false;
    route.n_missed = 0;
  }
  chosen->engine()->RegisterWorker(std::move(registration), std::move(done));
}

void WorkerRouter::SendHeartbeat(
    WorkerHeartbeat heartbeat, std::function<void(absl::StatusOr<bool>)> done) {
  std::shared_ptr<ModelInstance> model;
  {
    absl::MutexLock lock(&mu_);
    const auto route = routes_.find(heartbeat.worker_id);
    if (route != routes_.end()) model = route->second.model.lock();
  }
  if (model == nullptr) {
    done(NoLease(heartbeat.worker_id));
    return;
  }
  const std::string worker_id = heartbeat.worker_id;
  model->engine()->SendHeartbeat(
      std::move(heartbeat),
      [this, worker_id, model, done](const absl::StatusOr<bool>& released) {
        // Forgotten there, or with a model that is no more.
        const bool is_free =
            absl::IsNotFound(released.status()) ||
            (absl::IsUnavailable(released.status()) && !IsServed(model));
        if (!is_free) {
          done(released);
          return;
        }
        {
          absl::MutexLock lock(&mu_);
          const auto route = routes_.find(worker_id);
          if (route != routes_.end() && route->second.model.lock() == model) {
            routes_.erase(route);
          }
        }
        done(NoLease(worker_id));
      });
}

void WorkerRouter::SetCordoned(const std::string& worker_id, bool cordoned,
                               std::function<void(absl::Status)> done) {
  std::shared_ptr<ModelInstance> model;
  {
    absl::MutexLock lock(&mu_);
    if (cordoned && cordoned_.size() >= kMaxCordoned) {
      done(absl::ResourceExhaustedError(
          absl::StrCat(kMaxCordoned,
                       " workers are cordoned, which is the "
                       "limit; put others back first")));
      return;
    }
    const auto route = routes_.find(worker_id);
    if (route != routes_.end()) model = route->second.model.lock();
    // One that is away at the moment may be put back too.
    const bool was_cordoned = cordoned_.count(worker_id) > 0;
    if (model == nullptr && !was_cordoned) {
      done(absl::NotFoundError(
          absl::StrCat("no worker ", worker_id, " is known")));
      return;
    }
    if (cordoned) {
      cordoned_.insert(worker_id);
    } else {
      cordoned_.erase(worker_id);
    }
    if (route != routes_.end()) route->second.worker.available = !cordoned;
  }
  if (model == nullptr) {
    done(absl::OkStatus());
    return;
  }
  model->engine()->SetCordoned(worker_id, cordoned, std::move(done));
}

void WorkerRouter::Main() {
  const auto is_stopping = [this]() ABSL_SHARED_LOCKS_REQUIRED(mu_) {
    return stopping_;
  };
  for (;;) {
    {
      absl::MutexLock lock(&mu_);
      if (mu_.AwaitWithTimeout(absl::Condition(&is_stopping),
                               options_.balance_interval)) {
        return;
      }
    }
    Balance();
  }
}

// Everything is seen anew each time: the engines know best who is there.
void WorkerRouter::Balance() {
  ModelRegistry::Snapshots snapshots;
  absl::Notification gathered;
  models_->Inspect([&](ModelRegistry::Snapshots all) {
    snapshots = std::move(all);
    gathered.Notify();
  });
  gathered.WaitForNotification();
  std::vector<std::pair<std::shared_ptr<ModelInstance>, std::string>> moves;
  {
    absl::MutexLock lock(&mu_);
    const absl::Time now = absl::Now();
    ModelRegistry::Models models;
    std::map<std::string, Seen> seen;
    std::set<std::string> leaving;
    for (const auto& [model, snapshot] : snapshots) {
      models.push_back(model);
      const auto before = seen_.find(model->name());
      Seen& entry = seen[model->name()];
      entry.n_pipelines = static_cast<int>(snapshot.pipelines.size());
      entry.last_pipeline = entry.n_pipelines > 0 || before == seen_.end()
                                ? now
                                : before->second.last_pipeline;
      for (const Engine::WorkerStatus& status : snapshot.workers) {
        const auto route = routes_.find(status.worker.registration.worker_id);
        if (route == routes_.end() || route->second.model.lock() != model) {
          continue;
        }
        route->second.worker.available = status.worker.IsAvailable();
        route->second.worker.has_stage = status.stage >= 0;
        route->second.n_missed = -1;  // counted below
        if (status.worker.released) leaving.insert(route->first);
      }
    }
    seen_ = std::move(seen);
    for (auto route = routes_.begin(); route != routes_.end();) {
      route = ++route->second.n_missed > kMissedMax ? routes_.erase(route)
                                                    : std::next(route);
    }
    // One move at a time: those under way change what the next should be.
    if (models.size() > 1 && leaving.empty()) {
      for (const std::string& id : WorkersToMove(Assignments(models))) {
        moves.emplace_back(routes_.at(id).model.lock(), id);
      }
    }
  }
  for (const auto& [model, id] : moves) {
    if (model == nullptr) continue;
    LOG(INFO) << "event=worker_moves worker=" << id
              << " from=" << model->name();
    model->engine()->ReleaseWorker(id);
  }
}

}  // namespace tern
