#ifndef COORDINATOR_WORKER_ROUTER_H_
#define COORDINATOR_WORKER_ROUTER_H_

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "coordinator/cluster_view.h"
#include "coordinator/engine.h"
#include "coordinator/model_instance.h"
#include "coordinator/model_registry.h"
#include "coordinator/worker_assignment.h"

namespace tern {

// Which model each worker serves: gives workers that register to one model's
// engine, passes their heartbeats on, and moves them where a model lacks
// workers that others can spare. A worker moves by being released where it is
// and registering again. Thread-safe.
class WorkerRouter {
 public:
  struct Options {
    // How often to look whether a model lacks workers.
    absl::Duration balance_interval = absl::Seconds(1);
    // A model with workers enough and no pipeline for so long needs more.
    absl::Duration stuck_after = absl::Seconds(5);
  };

  // models: outlives it. cordoned: workers that are out of service already.
  WorkerRouter(const Options& options, ModelRegistry* models,
               std::set<std::string> cordoned = {});

  // Ends the thread.
  ~WorkerRouter();

  // As Engine has them; `done` may run on any thread. UNAVAILABLE without a
  // model.
  void RegisterWorker(WorkerRegistration registration,
                      std::function<void(absl::StatusOr<Engine::Lease>)> done)
      ABSL_LOCKS_EXCLUDED(mu_);
  void SendHeartbeat(WorkerHeartbeat heartbeat,
                     std::function<void(absl::StatusOr<bool>)> done)
      ABSL_LOCKS_EXCLUDED(mu_);
  void SetCordoned(const std::string& worker_id, bool cordoned,
                   std::function<void(absl::Status)> done)
      ABSL_LOCKS_EXCLUDED(mu_);

 private:
  struct Route {
    std::weak_ptr<ModelInstance> model;
    AssignableWorker worker;
    // Looks in a row at which its engine did not know it (yet, or any more).
    int n_missed = 0;
  };
  // What is known of a model's pipelines beside its workers.
  struct Seen {
    int n_pipelines = 0;
    absl::Time last_pipeline;  // when it had one, or was first seen
  };

  bool IsServed(const std::shared_ptr<ModelInstance>& model) const;
  void Main();
  void Balance() ABSL_LOCKS_EXCLUDED(mu_);
  std::vector<ModelWorkers> Assignments(const ModelRegistry::Models& models)
      const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const Options options_;
  ModelRegistry* const models_;

  absl::Mutex mu_;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  // Of the workers that the engines know, or did until a moment ago.
  std::map<std::string, Route> routes_ ABSL_GUARDED_BY(mu_);
  std::map<std::string, Seen> seen_ ABSL_GUARDED_BY(mu_);  // by model
  std::set<std::string> cordoned_ ABSL_GUARDED_BY(mu_);

  std::thread thread_;
};

}  // namespace tern

#endif  // COORDINATOR_WORKER_ROUTER_H_
