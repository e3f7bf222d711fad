#ifndef COORDINATOR_INFERENCE_SERVICE_H_
#define COORDINATOR_INFERENCE_SERVICE_H_

#include "coordinator/service_context.h"
#include "proto/tern/v1/inference.grpc.pb.h"

namespace tern {

// The public API, see inference.proto. Thread-safe.
class InferenceServiceImpl : public v1::InferenceService::CallbackService {
 public:
  explicit InferenceServiceImpl(const ServiceContext& context)
      : context_(context) {}

  grpc::ServerUnaryReactor* Generate(grpc::CallbackServerContext* call,
                                     const v1::GenerateRequest* request,
                                     v1::GenerateResponse* response) override;
  grpc::ServerWriteReactor<v1::StreamGenerateResponse>* StreamGenerate(
      grpc::CallbackServerContext* call,
      const v1::StreamGenerateRequest* request) override;
  grpc::ServerBidiReactor<v1::BatchGenerateRequest, v1::BatchGenerateResponse>*
  BatchGenerate(grpc::CallbackServerContext* call) override;
  grpc::ServerWriteReactor<v1::StreamGenerateResponse>* ResumeGenerate(
      grpc::CallbackServerContext* call,
      const v1::ResumeGenerateRequest* request) override;
  grpc::ServerUnaryReactor* Abort(grpc::CallbackServerContext* call,
                                  const v1::AbortRequest* request,
                                  v1::AbortResponse* response) override;
  grpc::ServerUnaryReactor* Tokenize(grpc::CallbackServerContext* call,
                                     const v1::TokenizeRequest* request,
                                     v1::TokenizeResponse* response) override;
  grpc::ServerUnaryReactor* Detokenize(
      grpc::CallbackServerContext* call, const v1::DetokenizeRequest* request,
      v1::DetokenizeResponse* response) override;
  grpc::ServerUnaryReactor* ListModels(
      grpc::CallbackServerContext* call, const v1::ListModelsRequest* request,
      v1::ListModelsResponse* response) override;
  grpc::ServerUnaryReactor* GetModel(grpc::CallbackServerContext* call,
                                     const v1::GetModelRequest* request,
                                     v1::GetModelResponse* response) override;

 private:
  const ServiceContext context_;
};

}  // namespace tern

#endif  // COORDINATOR_INFERENCE_SERVICE_H_
