#include "coordinator/model_registry.h"

#include <algorithm>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "util/logging.h"

namespace tern {
namespace {

// How often to look whether the last request of a model has ended.
constexpr absl::Duration kDrainPoll = absl::Milliseconds(20);

std::string NamesOf(const ModelRegistry::Models& models) {
  return absl::StrJoin(models, ", ",
                       [](std::string* out, const auto& instance) {
                         out->append(instance->name());
                       });
}

}  // namespace

ModelRegistry::~ModelRegistry() { Shutdown(); }

absl::Status ModelRegistry::Add(std::shared_ptr<ModelInstance> instance) {
  Bury();
  absl::MutexLock lock(&mu_);
  if (shut_down_) {
    return absl::UnavailableError("the coordinator is shutting down");
  }
  if (models_.size() >= kMaxModels) {
    return absl::ResourceExhaustedError(
        absl::StrCat(kMaxModels,
                     " models are loaded, which is the limit; "
                     "unload one first"));
  }
  for (const auto& other : models_) {
    if (other->name() == instance->name()) {
      return absl::AlreadyExistsError(
          absl::StrCat("a model of the name ", instance->name(),
                       " is served already; give this one another"));
    }
  }
  LOG(INFO) << "event=model_added model=" << instance->name()
            << " stages=" << instance->n_stages()
            << " head_mode=" << instance->served().head_mode;
  models_.push_back(std::move(instance));
  return absl::OkStatus();
}

absl::StatusOr<int> ModelRegistry::Remove(const std::string& name,
                                          absl::Duration drain_timeout) {
  std::shared_ptr<ModelInstance> instance;
  {
    absl::MutexLock lock(&mu_);
    const auto it =
        std::find_if(models_.begin(), models_.end(),
                     [&](const auto& other) { return other->name() == name; });
    if (it == models_.end()) {
      return absl::NotFoundError(
          absl::StrCat("no model ", name, "; this cluster serves ",
                       models_.empty() ? "none" : NamesOf(models_)));
    }
    instance = *it;
    models_.erase(it);
    removed_.push_back(instance);
  }
  LOG(INFO) << "event=model_removed model=" << name;
  const absl::Time deadline = absl::Now() + drain_timeout;
  const auto is_shut_down = [this]() ABSL_SHARED_LOCKS_REQUIRED(mu_) {
    return shut_down_;
  };
  while (instance->engine()->n_in_progress() > 0 && absl::Now() < deadline) {
    absl::MutexLock lock(&mu_);
    if (mu_.AwaitWithTimeout(absl::Condition(&is_shut_down), kDrainPoll)) break;
  }
  const int n_ended = instance->engine()->n_in_progress();
  instance->engine()->Shutdown();
  instance.reset();
  Bury();
  return n_ended;
}

absl::StatusOr<std::shared_ptr<ModelInstance>> ModelRegistry::Find(
    absl::string_view name) const {
  if (name.size() > 255) {
    return absl::InvalidArgumentError(absl::StrCat(
        "model has ", name.size(), " bytes; a name has at most 255"));
  }
  absl::MutexLock lock(&mu_);
  if (models_.empty()) {
    return absl::NotFoundError(
        "this cluster serves no model; load one with `tern models load`");
  }
  if (name.empty()) {
    if (models_.size() == 1) return models_.front();
    return absl::InvalidArgumentError(absl::StrCat(
        "model is missing; this cluster serves several: ", NamesOf(models_)));
  }
  for (const auto& instance : models_) {
    if (instance->name() == name) return instance;
  }
  return absl::NotFoundError(absl::StrCat(
      "no model ", name, "; this cluster serves ", NamesOf(models_)));
}

ModelRegistry::Models ModelRegistry::All() const {
  absl::MutexLock lock(&mu_);
  return models_;
}

ModelRegistry::Models ModelRegistry::AllInProgress() const {
  absl::MutexLock lock(&mu_);
  Models all = models_;
  all.insert(all.end(), removed_.begin(), removed_.end());
  return all;
}

int64_t ModelRegistry::RunnableSequences() const {
  absl::MutexLock lock(&mu_);
  int64_t n = 0;
  for (const auto& instance : models_) {
    n += int64_t{instance->engine()->n_serving()} *
         instance->engine()->max_sequences();
  }
  return n;
}

void ModelRegistry::Inspect(std::function<void(Snapshots)> done) const {
  const Models models = All();
  if (models.empty()) {
    done({});
    return;
  }
  struct Gathered {
    absl::Mutex mu;
    size_t n_missing ABSL_GUARDED_BY(mu);
    std::vector<absl::StatusOr<Engine::Snapshot>> snapshots ABSL_GUARDED_BY(mu);
  };
  auto gathered = std::make_shared<Gathered>();
  {
    absl::MutexLock lock(&gathered->mu);
    gathered->n_missing = models.size();
    gathered->snapshots.assign(models.size(),
                               absl::UnavailableError("not asked"));
  }
  for (size_t i = 0; i < models.size(); ++i) {
    models[i]->engine()->Inspect(
        [i, gathered, models, done](absl::StatusOr<Engine::Snapshot> snapshot) {
          Snapshots all;
          {
            absl::MutexLock lock(&gathered->mu);
            gathered->snapshots[i] = std::move(snapshot);
            if (--gathered->n_missing > 0) return;
            for (size_t k = 0; k < models.size(); ++k) {
              if (!gathered->snapshots[k].ok()) continue;
              all.emplace_back(models[k], *std::move(gathered->snapshots[k]));
            }
          }
          done(std::move(all));
        });
  }
}

bool ModelRegistry::is_shut_down() const {
  absl::MutexLock lock(&mu_);
  return shut_down_;
}

void ModelRegistry::Shutdown() {
  Models all;
  {
    absl::MutexLock lock(&mu_);
    shut_down_ = true;
    all = models_;
    all.insert(all.end(), removed_.begin(), removed_.end());
  }
  for (const auto& instance : all) instance->engine()->Shutdown();
}

void ModelRegistry::Bury() {
  Models dead;
  absl::MutexLock lock(&mu_);
  const auto is_ours_alone = [](const auto& instance) {
    return instance.use_count() == 1;
  };
  const auto begin =
      std::stable_partition(removed_.begin(), removed_.end(),
                            [&](const auto& m) { return !is_ours_alone(m); });
  dead.assign(std::make_move_iterator(begin),
              std::make_move_iterator(removed_.end()));
  removed_.erase(begin, removed_.end());
}

}  // namespace tern
