#ifndef WORKER_STAGE_BACKEND_H_
#define WORKER_STAGE_BACKEND_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/optional.h"
#include "worker/stage_links.h"
#include "worker/step_limits.h"
#include "worker/step_mailbox.h"

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
  std::string first_stage_address;
  std::string content_id = {};
  std::vector<std::string> weight_peer_addresses = {};
  int64_t kept_epoch = 0;
  bool keeps_boundary = false;
};

// What a loaded stage takes, and whether it kept what was in its KV blocks.
struct LoadedStage {
  int64_t weight_bytes;
  int64_t kv_bytes;
  bool kept_kv = false;
};

// Whoever asked for a load. Must not wait.
class LoadObserver {
 public:
  virtual ~LoadObserver() = default;
  virtual void OnProgress(int64_t loaded_bytes, int64_t total_bytes) = 0;
  // Nothing comes after it.
  virtual void OnLoaded(absl::StatusOr<LoadedStage> loaded) = 0;
  // Asked now and then: whether nobody waits for the load any more.
  virtual bool IsCancelled() = 0;
};

// What a worker's calls are carried to: whoever has the stage. The one that
// computes is StageHost (worker/stage_host.h). Thread-safe.
class StageBackend {
 public:
  // What a stream of plans needs.
  struct Plans {
    std::shared_ptr<StepMailbox> mailbox;
    StepLimits limits;
  };

  // Plans that may wait for the runner.
  static constexpr int kWaitingPlansMax = 64;

  virtual ~StageBackend() = default;

  // Checks a request and begins; `observer` hears the rest. A load that is
  // under way for an older epoch, and the stage of an older epoch, end with
  // ABORTED. Returns what LoadStage answers, see proto/tern/v1/worker.proto.
  virtual absl::Status Load(const StageRequest& request,
                            std::shared_ptr<LoadObserver> observer) = 0;

  // The loaded stage's mailbox. FAILED_PRECONDITION when none is loaded.
  virtual absl::StatusOr<Plans> plans() const = 0;

  // Where other stages send what belongs to an epoch: nothing when the epoch is
  // over, so that it is to be dropped; ABORTED when it has not begun here;
  // FAILED_PRECONDITION for another model or pipeline.
  virtual absl::StatusOr<absl::optional<Inboxes>> InboxesOf(
      absl::string_view model, absl::string_view pipeline_id,
      int64_t epoch) const = 0;

  // A stream of plans was cancelled before a plan had come on it: whoever
  // misses the results of one must know that nothing hangs here.
  virtual void OnCancelledWithoutPlans() {}
};

}  // namespace tern

#endif  // WORKER_STAGE_BACKEND_H_
