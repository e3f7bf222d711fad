#ifndef WORKER_GRPC_STAGE_LINK_H_
#define WORKER_GRPC_STAGE_LINK_H_

#include "absl/status/statusor.h"
#include "util/credentials.h"
#include "worker/stage_backend.h"
#include "worker/stage_link.h"

namespace tern {

// Links over gRPC streams to the stages whose addresses the request has:
// TransferHiddenStates to the next one, TransferSampledTokens to the first.
// Opens them without waiting for the peers. The links are thread-safe.
//
// hidden_size: of the hidden states that are sent; must be > 0.
absl::StatusOr<OutgoingLinks> MakeGrpcLinks(const StageRequest& stage,
                                            int hidden_size,
                                            const Credentials& credentials);

}  // namespace tern

#endif  // WORKER_GRPC_STAGE_LINK_H_
