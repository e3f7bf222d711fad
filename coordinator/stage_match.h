#ifndef COORDINATOR_STAGE_MATCH_H_
#define COORDINATOR_STAGE_MATCH_H_

#include <functional>
#include <vector>

#include "absl/types/span.h"
#include "coordinator/stage_cut.h"

namespace tern {

// Whether CutStage::worker may have the stage.
using MayHave = std::function<bool(const CutStage&)>;

// Finds a worker, one of 0 .. n_workers - 1, for each of the stages, whose
// `worker` says nothing yet. may_have: what is wanted, in the order in which it
// is given up; a stage goes to the first worker that satisfies the first of
// them, if anybody does, and so on. The worker of an earlier stage may be taken
// when that one finds another, so that all have one if that is possible at all
// under the last of them. Nothing when it is not. Pure.
std::vector<CutStage> MatchStages(std::vector<CutStage> stages, int n_workers,
                                  absl::Span<const MayHave> may_have);

}  // namespace tern

#endif  // COORDINATOR_STAGE_MATCH_H_
