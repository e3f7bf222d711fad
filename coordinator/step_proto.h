#ifndef COORDINATOR_STEP_PROTO_H_
#define COORDINATOR_STEP_PROTO_H_

#include "absl/status/statusor.h"
#include "coordinator/pipeline.h"
#include "coordinator/step_plan.h"
#include "proto/tern/v1/worker.pb.h"

namespace tern {

// The message for a plan of the pipeline `spec`.
v1::StepPlan ToProto(const StepPlan& plan, const Pipeline::Spec& spec);

// The plain twin of a stage's result. INTERNAL when it is not of this pipeline
// and epoch, or names a token that the model does not have.
absl::StatusOr<StepResult> FromProto(const v1::StepResult& result,
                                     const Pipeline::Spec& spec);

// The request to load stage `stage` of the pipeline `spec`.
v1::LoadStageRequest LoadRequestOf(const Pipeline::Spec& spec, int stage);

}  // namespace tern

#endif  // COORDINATOR_STEP_PROTO_H_
