#ifndef COORDINATOR_REFUSED_STAGE_H_
#define COORDINATOR_REFUSED_STAGE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "model/stage_plan.h"

namespace tern {

// A stage that a worker could not load, and may not be able to load next time:
// a tensor of its file is damaged or missing, or it lacks memory or disk.
struct RefusedStage {
  StageRange range;
  // RESOURCE_EXHAUSTED: fewer layers may fit, whichever they are. All others:
  // some tensor of these layers is to blame.
  absl::Status why;
};

// Most that are remembered of one worker; the latest count.
inline constexpr int kMaxRefusedStages = 16;

// Whether a failure to load says something of the stage, and not of a
// connection, a deadline or an epoch, which the next attempt need not share.
bool IsAboutStage(const absl::Status& why);

// Adds one; in place of those that say less.
void AddRefused(RefusedStage stage, std::vector<RefusedStage>* refused);

// Drops those that a stage which was loaded has disproved.
void DropDisproved(const StageRange& loaded,
                   std::vector<RefusedStage>* refused);

// How unwise it is to give a stage to the worker that has refused these: 0 when
// nothing speaks against it, else the layers that may hold what it cannot load,
// and kSameAgain for each refusal that the stage would meet again.
inline constexpr int64_t kSameAgain = 1 << 16;
int64_t RefusedLayers(absl::Span<const RefusedStage> refused,
                      const StageRange& range);

// "layers 0-14: <why>; ..." for people; the latest last.
std::string RefusedText(absl::Span<const RefusedStage> refused);

}  // namespace tern

#endif  // COORDINATOR_REFUSED_STAGE_H_
