#ifndef COORDINATOR_GENERATE_REACTORS_H_
#define COORDINATOR_GENERATE_REACTORS_H_

#include "coordinator/service_context.h"
#include "grpcpp/server_context.h"
#include "grpcpp/support/server_callback.h"
#include "proto/tern/v1/inference.pb.h"

namespace tern {

// Answers Generate. The reactor owns itself. `context` outlives the call.
grpc::ServerUnaryReactor* NewGenerateReactor(const ServiceContext& context,
                                             grpc::CallbackServerContext* call,
                                             const v1::GenerateRequest* request,
                                             v1::GenerateResponse* response);

// Answers StreamGenerate, the same way.
grpc::ServerWriteReactor<v1::StreamGenerateResponse>* NewStreamReactor(
    const ServiceContext& context, grpc::CallbackServerContext* call,
    const v1::StreamGenerateRequest* request);

// Answers ResumeGenerate, the same way.
grpc::ServerWriteReactor<v1::StreamGenerateResponse>* NewResumeReactor(
    const ServiceContext& context, grpc::CallbackServerContext* call,
    const v1::ResumeGenerateRequest* request);

}  // namespace tern

#endif  // COORDINATOR_GENERATE_REACTORS_H_
