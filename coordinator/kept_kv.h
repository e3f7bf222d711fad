#ifndef COORDINATOR_KEPT_KV_H_
#define COORDINATOR_KEPT_KV_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "coordinator/block_manager.h"
#include "coordinator/placement.h"
#include "coordinator/step_plan.h"
#include "model/stage_plan.h"

namespace tern {

// What the KV blocks of a lost pipeline hold, and whose memory still has it.
struct KeptKv {
  struct Stage {
    std::string worker_id;
    int64_t incarnation = 0;
    StageRange range;
    // The last in which the worker had the stage, ready; 0 when nobody has its
    // part of the blocks any more.
    int64_t epoch = 0;
  };
  std::vector<Stage> stages;
  std::string numerics_id;
  // Whether each stage but the last kept what it sent to the next one.
  bool keeps_boundary = false;
  BlockManager blocks;  // none in use

  int n_held() const;
};

// Tells `kept.blocks` which stages have lost their part, and gives them away:
// has_kept[i] says whether the worker that has stage i now kept it. Those that
// lost a block, and where the boundary is not kept those before them, have to
// compute it again. Nothing when no stage has kept it.
std::optional<BlockManager> RecoverBlocks(KeptKv kept,
                                          absl::Span<const char> has_kept);

// What lost pipelines left, until their workers hold something else.
//
// Pure bookkeeping. Not thread-safe: owned by the engine thread.
class KeptKvs {
 public:
  // Pipelines whose blocks are remembered; the oldest are forgotten first.
  static constexpr size_t kMax = 16;

  // The process that has a worker's id now; 0 when there is none.
  using IncarnationOf = std::function<int64_t(const std::string& worker_id)>;

  // Nothing happens when nobody holds it, or when it holds nothing.
  void Put(KeptKv kept);

  // All that is there, the oldest first; nothing is left.
  std::vector<KeptKv> TakeAll();

  // For a pipeline about to be formed: what of the same stages is still held by
  // most of its workers, if by any. The epochs of stages that are not are 0.
  // What else its workers hold is forgotten: they will not.
  std::optional<KeptKv> Take(const Placement& placement,
                             absl::string_view numerics_id,
                             const IncarnationOf& incarnation_of);

  size_t size() const { return kept_.size(); }

 private:
  std::deque<KeptKv> kept_;  // oldest first
};

}  // namespace tern

#endif  // COORDINATOR_KEPT_KV_H_
