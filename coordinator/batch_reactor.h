#ifndef COORDINATOR_BATCH_REACTOR_H_
#define COORDINATOR_BATCH_REACTOR_H_

#include "coordinator/service_context.h"
#include "grpcpp/server_context.h"
#include "grpcpp/support/server_callback.h"
#include "proto/tern/v1/inference.pb.h"

namespace tern {

// Answers BatchGenerate: reads the next prompt while fewer than
// `context.batch_window_max` of the call are in progress, and writes each
// result when it is there. A prompt that finds the cluster's queue full waits
// for another of its call to end, and fails only when there is none. The
// reactor owns itself. What `context` points to outlives the call.
grpc::ServerBidiReactor<v1::BatchGenerateRequest, v1::BatchGenerateResponse>*
NewBatchReactor(const ServiceContext& context,
                grpc::CallbackServerContext* call);

}  // namespace tern

#endif  // COORDINATOR_BATCH_REACTOR_H_
