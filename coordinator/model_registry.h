#ifndef COORDINATOR_MODEL_REGISTRY_H_
#define COORDINATOR_MODEL_REGISTRY_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "coordinator/engine.h"
#include "coordinator/model_instance.h"

namespace tern {

// The models that the cluster serves at the moment. Thread-safe.
//
// Whoever works with a model holds a share of it, and goes on when it is
// removed: its engine then says UNAVAILABLE to everything. The registry has a
// share of every one until nobody else has, so that a model never ends on a
// thread of its own.
class ModelRegistry {
 public:
  // Most models at a time.
  static constexpr int kMaxModels = 64;

  using Models = std::vector<std::shared_ptr<ModelInstance>>;
  using Snapshots =
      std::vector<std::pair<std::shared_ptr<ModelInstance>, Engine::Snapshot>>;

  // Shutdown().
  ~ModelRegistry();

  // ALREADY_EXISTS, RESOURCE_EXHAUSTED, or UNAVAILABLE after Shutdown().
  absl::Status Add(std::shared_ptr<ModelInstance> instance)
      ABSL_LOCKS_EXCLUDED(mu_);

  // Ends to serve the model: it cannot be found from now on. What is in
  // progress may end within `drain_timeout` and is UNAVAILABLE then. Waits for
  // all that. Returns how many sequences were ended before their time, or
  // NOT_FOUND.
  absl::StatusOr<int> Remove(const std::string& name,
                             absl::Duration drain_timeout)
      ABSL_LOCKS_EXCLUDED(mu_);

  // The model of that name; with no name, the only one there is.
  //
  // NOT_FOUND         no such model, or none at all; lists those there are
  // INVALID_ARGUMENT  no name, and several models; or a name that is too long
  absl::StatusOr<std::shared_ptr<ModelInstance>> Find(
      absl::string_view name) const ABSL_LOCKS_EXCLUDED(mu_);

  // In the order in which they were added.
  Models All() const ABSL_LOCKS_EXCLUDED(mu_);

  // Those, and those that are being removed.
  Models AllInProgress() const ABSL_LOCKS_EXCLUDED(mu_);

  // Sequences that all pipelines together can run. Changes at any time.
  int64_t RunnableSequences() const ABSL_LOCKS_EXCLUDED(mu_);

  // Looks at every model; `done` is called once, on one of the engines' threads
  // or, without models, at once. Models whose engine is busy or shut down are
  // left out.
  void Inspect(std::function<void(Snapshots)> done) const
      ABSL_LOCKS_EXCLUDED(mu_);

  // Whether Shutdown() was called: what takes long had better stop.
  bool is_shut_down() const ABSL_LOCKS_EXCLUDED(mu_);

  // Ends all engines, and takes no more. May be called twice.
  void Shutdown() ABSL_LOCKS_EXCLUDED(mu_);

 private:
  // Lets go of removed models that nobody uses any more.
  void Bury() ABSL_LOCKS_EXCLUDED(mu_);

  mutable absl::Mutex mu_;
  bool shut_down_ ABSL_GUARDED_BY(mu_) = false;
  Models models_ ABSL_GUARDED_BY(mu_);
  Models removed_ ABSL_GUARDED_BY(mu_);
};

}  // namespace tern

#endif  // COORDINATOR_MODEL_REGISTRY_H_
