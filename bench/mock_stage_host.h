#ifndef BENCH_MOCK_STAGE_HOST_H_
#define BENCH_MOCK_STAGE_HOST_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "bench/mock_stage.h"
#include "worker/stage_backend.h"
#include "worker/stage_link.h"
#include "worker/stage_links.h"
#include "worker/step_limits.h"

namespace tern {

// What a stage did between its first plan with rows and its last.
struct StageUse {
  int64_t n_steps = 0;  // with rows
  int64_t n_tokens = 0;
  absl::Duration busy;
  absl::Duration span;

  double idle_share() const {
    return span > absl::ZeroDuration() ? 1 - absl::FDivDuration(busy, span) : 0;
  }
};

// Has a MockStage in place of a real one behind a worker's calls: mailbox,
// inboxes, links and checks are the worker's own, and only the computation is
// waited for instead. A step occupies the stage from the moment that plan and
// input are there until its time is over. One thread for each loaded stage,
// which sleeps nearly always. Thread-safe.
class MockStageHost : public StageBackend {
 public:
  struct Options {
    std::string model;  // the name that the coordinator uses
    int32_t vocab_size = 0;
    int32_t context_length = 0;
    uint64_t model_fingerprint = 0;
    CostModel cost;
    // Part of the model's time that a stage takes; 0 for 1 / stages.
    double stage_share = 0;
    // Part of it that each layer takes instead, when it is not 0.
    double layer_share = 0;
    int answer_tokens = 0;
    // Numbers that stages pass on for each token; at least 1. A real stage
    // passes the model's hidden size.
    int link_width = 1;
  };
  using LinkFactory = std::function<absl::StatusOr<OutgoingLinks>(
      const StageRequest& request, int link_width)>;

  MockStageHost(Options options, LinkFactory make_links);

  // Ends whatever runs, and waits for it.
  ~MockStageHost() override;

  absl::Status Load(const StageRequest& request,
                    std::shared_ptr<LoadObserver> observer) override
      ABSL_LOCKS_EXCLUDED(mu_);
  absl::StatusOr<Plans> plans() const override ABSL_LOCKS_EXCLUDED(mu_);
  absl::StatusOr<absl::optional<Inboxes>> InboxesOf(
      absl::string_view model, absl::string_view pipeline_id,
      int64_t epoch) const override ABSL_LOCKS_EXCLUDED(mu_);

  // Ends whatever runs with `status`, and takes nothing from now on.
  void Shutdown(absl::Status status) ABSL_LOCKS_EXCLUDED(mu_);

  int64_t finished_step_count() const { return finished_steps_.load(); }

  // Of the latest epoch.
  StageUse use() const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  class Session;

  absl::Status Check(const StageRequest& request) const;
  absl::StatusOr<std::shared_ptr<Session>> MakeSession(
      const StageRequest& request);

  const Options options_;
  const LinkFactory make_links_;
  std::atomic<int64_t> finished_steps_{0};

  mutable absl::Mutex mu_;
  int64_t epoch_ ABSL_GUARDED_BY(mu_) = 0;  // newest accepted
  std::shared_ptr<Session> session_ ABSL_GUARDED_BY(mu_);
  absl::Status shutdown_ ABSL_GUARDED_BY(mu_);
};

}  // namespace tern

#endif  // BENCH_MOCK_STAGE_HOST_H_
