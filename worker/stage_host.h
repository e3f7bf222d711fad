#ifndef WORKER_STAGE_HOST_H_
#define WORKER_STAGE_HOST_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "kernels/head.h"
#include "kernels/isa.h"
#include "kernels/ternary_layout.h"
#include "model/model_config.h"
#include "model/model_source.h"
#include "util/bounded_queue.h"
#include "util/clock.h"
#include "worker/kv_cache.h"
#include "worker/runner.h"
#include "worker/stage.h"
#include "worker/stage_backend.h"
#include "worker/stage_link.h"
#include "worker/stage_links.h"
#include "worker/stage_weights.h"
#include "worker/step_limits.h"
#include "worker/step_mailbox.h"
#include "worker/thread_placement.h"
#include "worker/thread_pool.h"

namespace tern {

// The stage that this worker serves, from one epoch to the next: loads it on a
// thread of its own, and ties mailbox, inbox, link and runner together.
// Thread-safe.
class StageHost : public StageBackend {
 public:
  struct Options {
    std::string model_name;
    // Of the compute threads.
    ThreadPlacement placement;
    // Bytes that weights and KV pool may take together.
    int64_t memory_bytes = 0;
    Isa isa = Isa::kRef;
    // One that the kernels of `isa` have.
    TernaryPacking packing = TernaryPacking::k2Bit;
    Runner::Options runner;
    // Steps whose hidden states may wait for the runner.
    int waiting_steps_max = 4;
  };
  using LinkFactory = std::function<absl::StatusOr<OutgoingLinks>(
      const StageRequest& request, int hidden_size)>;

  // make_links: connects to the stages whose addresses the request has, without
  //             waiting for them.
  StageHost(const Options& options, std::shared_ptr<const ModelSource> source,
            LinkFactory make_links, Clock* clock);

  // Ends whatever runs, and waits for it.
  ~StageHost() override;

  absl::Status Load(const StageRequest& request,
                    std::shared_ptr<LoadObserver> observer) override
      ABSL_LOCKS_EXCLUDED(mu_);
  absl::StatusOr<Plans> plans() const override ABSL_LOCKS_EXCLUDED(mu_);
  absl::StatusOr<absl::optional<Inboxes>> InboxesOf(
      absl::string_view model, absl::string_view pipeline_id,
      int64_t epoch) const override ABSL_LOCKS_EXCLUDED(mu_);
  void OnCancelledWithoutPlans() override { ++progress_; }

  // What Load() would say of the request itself, and of the memory that it
  // takes, with nothing begun: RESOURCE_EXHAUSTED has the numbers.
  absl::Status CheckRequest(const StageRequest& request) const;

  // Ends whatever runs with `status`, and takes nothing from now on. Does not
  // wait for a step or a load that is under way to notice.
  void Shutdown(absl::Status status) ABSL_LOCKS_EXCLUDED(mu_);

  int64_t finished_step_count() const { return finished_steps_.load(); }

  // Grows with every layer computed, and with every stage let go: stands still
  // while there is a step only when something hangs.
  int64_t progress() const { return progress_.load(); }

 private:
  struct Job {
    StageRequest request;
    HeadMode head_mode;
    std::shared_ptr<LoadObserver> observer;
  };
  // One epoch of one stage.
  struct Session {
    StepLimits limits;
    std::shared_ptr<StepMailbox> mailbox;
    StageLinks links;
    std::unique_ptr<Runner> runner;
  };

  absl::Status Check(const StageRequest& request, HeadMode* head_mode) const;
  absl::Status CheckMemory(const StageRequest& request,
                           HeadMode head_mode) const;
  void LoaderMain();
  absl::StatusOr<LoadedStage> RunJob(const Job& job) ABSL_LOCKS_EXCLUDED(mu_);
  // Sets whether the KV pool kept what the request asks for.
  absl::Status PrepareStage(const Job& job, bool* kept_kv);
  // Ends the session, if there is one, and waits for its runner.
  void EndSession(const absl::Status& status) ABSL_LOCKS_EXCLUDED(mu_);
  // OK while nothing has made the job needless.
  absl::Status StillWanted(const Job& job) const ABSL_LOCKS_EXCLUDED(mu_);

  const Options options_;
  const std::shared_ptr<const ModelSource> source_;
  const ModelConfig& config_;  // of source_
  const LinkFactory make_links_;
  Clock* const clock_;
  std::atomic<int64_t> finished_steps_{0};
  std::atomic<int64_t> progress_{0};

  // Of the loader thread, and of the runner that it starts and waits for.
  ThreadPool pool_;
  std::shared_ptr<const StageWeights> weights_;
  std::unique_ptr<KvCache> kv_;
  // Epochs at whose end kv_ held what it holds: the last that ran a step, and
  // later ones.
  std::vector<int64_t> kv_epochs_;
  int64_t kv_extension_count_ = 0;  // of kv_, when they were right
  std::unique_ptr<Stage> stage_;
  int stage_step_tokens_ = 0;

  BoundedQueue<Job> jobs_;

  mutable absl::Mutex mu_;
  int64_t epoch_ ABSL_GUARDED_BY(mu_) = 0;  // newest accepted
  std::shared_ptr<Session> session_ ABSL_GUARDED_BY(mu_);
  absl::Status shutdown_ ABSL_GUARDED_BY(mu_);

  std::thread loader_;
};

}  // namespace tern

#endif  // WORKER_STAGE_HOST_H_
