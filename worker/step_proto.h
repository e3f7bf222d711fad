#ifndef WORKER_STEP_PROTO_H_
#define WORKER_STEP_PROTO_H_

#include "absl/status/statusor.h"
#include "proto/tern/v1/worker.pb.h"
#include "worker/step.h"
#include "worker/step_limits.h"

namespace tern {

// Sequences that one plan may open, and release.
inline constexpr int kStepSequencesMax = 1 << 16;

// Tokens of a sequence that may have a logit bias.
inline constexpr int kLogitBiasesMax = 1024;

// Checks everything about a plan that can be told without the state of the
// sequences. INVALID_ARGUMENT names the field, its value and the limit;
// UNIMPLEMENTED for what this worker does not announce (granted steps); ABORTED
// for a newer epoch; FAILED_PRECONDITION for another model, pipeline or
// numerics id. Plans of an older epoch are the caller's to drop.
absl::StatusOr<StepPlan> ParseStepPlan(const v1::StepPlan& plan,
                                       const StepLimits& limits);

// The message for a result.
v1::StepResult MakeStepResult(const StepResult& result,
                              const StepLimits& limits);

}  // namespace tern

#endif  // WORKER_STEP_PROTO_H_
