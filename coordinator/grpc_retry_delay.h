#ifndef COORDINATOR_GRPC_RETRY_DELAY_H_
#define COORDINATOR_GRPC_RETRY_DELAY_H_

#include <optional>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "grpcpp/support/status.h"

namespace tern {

// The status of a call; with when to try again, if that is known, as
// google.rpc.RetryInfo (proto/tern/v1/error.proto): at least a second, at most
// a minute.
grpc::Status ToGrpcStatus(const absl::Status& status,
                          std::optional<absl::Duration> retry_after);

}  // namespace tern

#endif  // COORDINATOR_GRPC_RETRY_DELAY_H_
