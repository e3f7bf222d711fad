#ifndef WORKER_STAGE_HOST_H_
#define WORKER_STAGE_HOST_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "kernels/head.h"
#include "kernels/isa.h"
#include "kernels/ternary_layout.h"
#include "model/model_config.h"
#include "model/model_source.h"
#include "util/bounded_queue.h"
#include "util/clock.h"
#include "worker/hidden_states_inbox.h"
#include "worker/kv_cache.h"
#include "worker/runner.h"
#include "worker/stage.h"
#include "worker/stage_link.h"
#include "worker/stage_weights.h"
#include "worker/step_limits.h"
#include "worker/step_mailbox.h"
#include "worker/thread_placement.h"
#include "worker/thread_pool.h"

namespace tern {

// A stage to load; LoadStageRequest in plain values.
struct StageRequest {
  std::string model;
  std::string pipeline_id;
  int64_t epoch;
  uint64_t model_fingerprint;
  int32_t layer_begin;
  int32_t layer_end;
  int32_t stage_index;
  int32_t stage_count;
  std::string numerics_id;
  int32_t kv_block_count;
  int32_t max_step_tokens;
  std::string next_stage_address;
};

// What a loaded stage takes.
struct LoadedStage {
  int64_t weight_bytes;
  int64_t kv_bytes;
};

// Whoever asked for a load. Called from the loader thread; must not wait.
class LoadObserver {
 public:
  virtual ~LoadObserver() = default;
  virtual void OnProgress(int64_t loaded_bytes, int64_t total_bytes) = 0;
  // Nothing comes after it.
  virtual void OnLoaded(absl::StatusOr<LoadedStage> loaded) = 0;
  // Asked now and then: whether nobody waits for the load any more.
  virtual bool IsCancelled() = 0;
};

// The stage that this worker serves, from one epoch to the next: loads it on a
// thread of its own, and ties mailbox, inbox, link and runner together.
// Thread-safe.
class StageHost {
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
  using LinkFactory = std::function<absl::StatusOr<std::shared_ptr<StageLink>>(
      const StageRequest& request, int hidden_size)>;

  // What a stream of plans needs.
  struct Plans {
    std::shared_ptr<StepMailbox> mailbox;
    StepLimits limits;
  };

  // Plans that may wait for the runner.
  static constexpr int kWaitingPlansMax = 64;

  // make_link: connects to the next stage, without waiting for it.
  StageHost(const Options& options, std::shared_ptr<const ModelSource> source,
            LinkFactory make_link, Clock* clock);

  // Ends whatever runs, and waits for it.
  ~StageHost();

  // Checks a request and queues it; `observer` hears the rest. A load that is
  // under way for an older epoch, and the stage of an older epoch, end with
  // ABORTED. Returns what LoadStage answers, see proto/tern/v1/worker.proto.
  absl::Status Load(const StageRequest& request,
                    std::shared_ptr<LoadObserver> observer)
      ABSL_LOCKS_EXCLUDED(mu_);

  // The loaded stage's mailbox. FAILED_PRECONDITION when none is loaded.
  absl::StatusOr<Plans> plans() const ABSL_LOCKS_EXCLUDED(mu_);

  // The inbox for hidden states of an epoch: null when the epoch is over, so
  // that they are to be dropped; ABORTED when it has not begun here;
  // FAILED_PRECONDITION for another model or pipeline, or for a first stage.
  absl::StatusOr<std::shared_ptr<HiddenStatesInbox>> InboxOf(
      absl::string_view model, absl::string_view pipeline_id,
      int64_t epoch) const ABSL_LOCKS_EXCLUDED(mu_);

  // Ends whatever runs with `status`, and takes nothing from now on. Does not
  // wait for a step or a load that is under way to notice.
  void Shutdown(absl::Status status) ABSL_LOCKS_EXCLUDED(mu_);

  int64_t finished_step_count() const { return finished_steps_.load(); }

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
    std::shared_ptr<HiddenStatesInbox> inbox;  // null for the first stage
    std::shared_ptr<StageLink> link;           // null for the last stage
    std::unique_ptr<Runner> runner;
  };

  absl::Status Check(const StageRequest& request, HeadMode* head_mode) const;
  absl::Status CheckMemory(const StageRequest& request,
                           HeadMode head_mode) const;
  void LoaderMain();
  absl::StatusOr<LoadedStage> RunJob(const Job& job) ABSL_LOCKS_EXCLUDED(mu_);
  absl::Status PrepareStage(const Job& job);
  // Ends the session, if there is one, and waits for its runner.
  void EndSession(const absl::Status& status) ABSL_LOCKS_EXCLUDED(mu_);
  // OK while nothing has made the job needless.
  absl::Status StillWanted(const Job& job) const ABSL_LOCKS_EXCLUDED(mu_);

  const Options options_;
  const std::shared_ptr<const ModelSource> source_;
  const ModelConfig& config_;  // of source_
  const LinkFactory make_link_;
  Clock* const clock_;
  std::atomic<int64_t> finished_steps_{0};

  // Of the loader thread, and of the runner that it starts and waits for.
  ThreadPool pool_;
  std::shared_ptr<const StageWeights> weights_;
  std::unique_ptr<KvCache> kv_;
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
