#ifndef UTIL_GRPC_STATUS_H_
#define UTIL_GRPC_STATUS_H_

#include "absl/status/status.h"
#include "grpcpp/support/status.h"

namespace tern {

// The same code and message in the other library's type. Used where gRPC calls
// come in and go out, nowhere else.
grpc::Status ToGrpcStatus(const absl::Status& status);
absl::Status FromGrpcStatus(const grpc::Status& status);

// Trailing metadata of calls that a worker ends by itself: a status that comes
// without it was made up by gRPC, because the connection or the process is gone.
inline constexpr char kFromWorkerKey[] = "tern-from-worker";

}  // namespace tern

#endif  // UTIL_GRPC_STATUS_H_
