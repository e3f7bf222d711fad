#include "worker/worker_service.h"

#include <string>

#include "absl/status/status.h"
#include "util/grpc_status.h"
#include "worker/load_stage_call.h"
#include "worker/steps_call.h"
#include "worker/transfer_call.h"

namespace tern {

grpc::ServerWriteReactor<v1::LoadStageResponse>* WorkerServiceImpl::LoadStage(
    grpc::CallbackServerContext* context, const v1::LoadStageRequest* request) {
  return LoadStageCall::Start(
      credentials_->CheckCaller(*context, {kCoordinatorName}), *request, host_,
      clock_);
}

grpc::ServerBidiReactor<v1::StepPlan, v1::StepResult>*
WorkerServiceImpl::ExecuteSteps(grpc::CallbackServerContext* context) {
  context->AddTrailingMetadata(kFromWorkerKey, "1");
  return StepsCall::Start(
      credentials_->CheckCaller(*context, {kCoordinatorName}), host_);
}

grpc::ServerReadReactor<v1::TransferHiddenStatesRequest>*
WorkerServiceImpl::TransferHiddenStates(
    grpc::CallbackServerContext* context,
    v1::TransferHiddenStatesResponse* response) {
  return TransferCall<HiddenStatesTransfer>::Start(
      credentials_->CheckCaller(*context, {kWorkerName}), response, host_);
}

grpc::ServerReadReactor<v1::TransferSampledTokensRequest>*
WorkerServiceImpl::TransferSampledTokens(
    grpc::CallbackServerContext* context,
    v1::TransferSampledTokensResponse* response) {
  return TransferCall<SampledTokensTransfer>::Start(
      credentials_->CheckCaller(*context, {kWorkerName}), response, host_);
}

}  // namespace tern
