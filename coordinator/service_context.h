#ifndef COORDINATOR_SERVICE_CONTEXT_H_
#define COORDINATOR_SERVICE_CONTEXT_H_

#include "absl/time/time.h"
#include "coordinator/journal.h"
#include "coordinator/model_registry.h"
#include "coordinator/operator_store.h"
#include "coordinator/publisher.h"
#include "coordinator/resumable_requests.h"
#include "coordinator/worker_router.h"
#include "grpcpp/server_context.h"
#include "util/clock.h"
#include "util/credentials.h"

namespace tern {

// What the gRPC services work with. Everything outlives the gRPC server.
struct ServiceContext {
  ModelRegistry* models = nullptr;
  WorkerRouter* workers = nullptr;
  Publisher* publisher = nullptr;
  ResumableRequests* resumables = nullptr;
  const Journal* journal = nullptr;    // null without one
  OperatorStore* operators = nullptr;  // null without a journal
  const Credentials* credentials = nullptr;
  Clock* clock = nullptr;

  // Most prompts of one BatchGenerate call that are in progress or have a
  // result that is not written yet, however many pipelines serve.
  int batch_window_max = 1024;

  // Tokens per KV block, for people.
  int kv_block_size = 16;
};

// The deadline of a call on `clock`; InfiniteFuture when it has none.
absl::Time DeadlineOf(const grpc::ServerContextBase& context, Clock* clock);

}  // namespace tern

#endif  // COORDINATOR_SERVICE_CONTEXT_H_
