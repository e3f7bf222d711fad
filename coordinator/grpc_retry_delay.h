#ifndef COORDINATOR_GRPC_RETRY_DELAY_H_
#define COORDINATOR_GRPC_RETRY_DELAY_H_

#include <optional>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "google/protobuf/duration.pb.h"
#include "grpcpp/support/status.h"

namespace tern {

// When to try again, as it is told: at least a second, at most a minute.
google::protobuf::Duration RetryDelay(absl::Duration retry_after);

// The status of a call; with when to try again, if that is known, as
// google.rpc.RetryInfo (proto/tern/v1/error.proto).
grpc::Status ToGrpcStatus(const absl::Status& status,
                          std::optional<absl::Duration> retry_after);

}  // namespace tern

#endif  // COORDINATOR_GRPC_RETRY_DELAY_H_
