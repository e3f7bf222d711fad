#ifndef COORDINATOR_PIPELINE_H_
#define COORDINATOR_PIPELINE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "coordinator/placement.h"
#include "coordinator/step_plan.h"

namespace tern {

// One incarnation (epoch) of a pipeline of workers: loads its stages, then
// executes plans until it is lost or destroyed. It is never repaired: the
// engine makes a new one of a later epoch.
//
// Owned and called by the engine thread. Destroying it lets the workers go; a
// listener may still be called meanwhile, and shortly afterwards.
class Pipeline {
 public:
  // What a pipeline is made of.
  struct Spec {
    std::string model;
    std::string pipeline_id;
    int64_t epoch = 0;
    uint64_t model_fingerprint = 0;
    std::string content_id;  // empty when it is not known
    // Addresses of workers that may hold parts of that content.
    std::vector<std::string> weight_peers;
    std::string numerics_id;
    int vocab_size = 0;     // tokens outside of it are a broken worker's
    int kv_block_size = 0;  // that the workers must have
    int max_step_tokens = 0;
    // Whether rows will name the step that samples their token.
    bool looks_ahead = false;
    Placement placement;
    // By stage: the epoch at whose end its worker held what is still of use in
    // its KV blocks; 0 for none.
    std::vector<int64_t> kept_epochs;
  };

  // A loaded stage.
  struct StageInfo {
    int64_t weight_bytes = 0;
    int64_t kv_bytes = 0;
    // Whether the KV blocks hold what they held at the end of kept_epochs.
    bool kept_kv = false;
  };

  // Hears what becomes of it. Called on any thread, one call at a time; must
  // not block, nor call back into the pipeline.
  struct Listener {
    // Bytes of packed weights that a stage has made, of how many.
    std::function<void(int stage, int64_t loaded, int64_t total)> on_progress;
    // Every stage is loaded, plans may come.
    std::function<void(std::vector<StageInfo> stages)> on_ready;
    // Every stage has finished a step; in order of the steps.
    std::function<void(StepResult result)> on_result;
    // It is over, because of this stage. Comes at most once, and last.
    std::function<void(int stage, absl::Status status)> on_lost;
  };

  virtual ~Pipeline() = default;

  // Sends a plan to every stage. Never waits; nothing happens when the pipeline
  // is lost.
  // REQUIRES: on_ready() was called.
  virtual void Send(const StepPlan& plan) = 0;

  // The first stage that has not answered the oldest step in flight: the one
  // that all wait for. 0 when nothing is in flight.
  virtual int SlowestStage() = 0;
};

// Starts loading the stages of a pipeline.
using PipelineFactory = std::function<std::unique_ptr<Pipeline>(
    Pipeline::Spec spec, Pipeline::Listener listener)>;

}  // namespace tern

#endif  // COORDINATOR_PIPELINE_H_
