#ifndef COORDINATOR_GRPC_PIPELINE_H_
#define COORDINATOR_GRPC_PIPELINE_H_

#include <memory>

#include "coordinator/pipeline.h"
#include "util/credentials.h"

namespace tern {

// A pipeline of workers behind gRPC: LoadStage on all of them at once, then one
// ExecuteSteps stream to each.
//
// Plans and results travel in order on each stream. A result goes to the
// listener when every stage has sent its own for that step. Whatever is not in
// order, or ends a call or stream, ends the pipeline.
class GrpcPipeline : public Pipeline {
 public:
  // Starts loading. `credentials` must live as long as the pipeline.
  GrpcPipeline(Spec spec, Listener listener, const Credentials* credentials);

  // Cancels every call.
  ~GrpcPipeline() override;

  void Send(const StepPlan& plan) override;
  int SlowestStage() override;

 private:
  class Core;
  class LoadCall;
  class StepStream;

  // Outlives the pipeline while calls are ending.
  const std::shared_ptr<Core> core_;
};

}  // namespace tern

#endif  // COORDINATOR_GRPC_PIPELINE_H_
