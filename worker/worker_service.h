#ifndef WORKER_WORKER_SERVICE_H_
#define WORKER_WORKER_SERVICE_H_

#include "grpcpp/server_context.h"
#include "grpcpp/support/server_callback.h"
#include "proto/tern/v1/worker.grpc.pb.h"
#include "proto/tern/v1/worker.pb.h"
#include "util/clock.h"
#include "util/credentials.h"
#include "worker/stage_backend.h"

namespace tern {

// The worker's side of the data plane: checks who calls and what they say, and
// carries it to the stage host and back. Holds no state beyond the calls'.
class WorkerServiceImpl final : public v1::WorkerService::CallbackService {
 public:
  // All must outlive the service.
  WorkerServiceImpl(StageBackend* host, const Credentials* credentials,
                    Clock* clock)
      : host_(host), credentials_(credentials), clock_(clock) {}

  grpc::ServerWriteReactor<v1::LoadStageResponse>* LoadStage(
      grpc::CallbackServerContext* context,
      const v1::LoadStageRequest* request) override;

  grpc::ServerBidiReactor<v1::StepPlan, v1::StepResult>* ExecuteSteps(
      grpc::CallbackServerContext* context) override;

  grpc::ServerReadReactor<v1::TransferHiddenStatesRequest>*
  TransferHiddenStates(grpc::CallbackServerContext* context,
                       v1::TransferHiddenStatesResponse* response) override;

  grpc::ServerReadReactor<v1::TransferSampledTokensRequest>*
  TransferSampledTokens(grpc::CallbackServerContext* context,
                        v1::TransferSampledTokensResponse* response) override;

 private:
  StageBackend* const host_;
  const Credentials* const credentials_;
  Clock* const clock_;
};

}  // namespace tern

#endif  // WORKER_WORKER_SERVICE_H_
