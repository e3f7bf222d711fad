#ifndef WORKER_GRPC_WEIGHT_SOURCE_H_
#define WORKER_GRPC_WEIGHT_SOURCE_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "util/credentials.h"
#include "worker/weight_source.h"

namespace tern {

// The BlobService at `address`, without waiting for it. peer_name:
// kCoordinatorName or kWorkerName. FAILED_PRECONDITION as
// Credentials::CreateChannel().
absl::StatusOr<std::shared_ptr<WeightSource>> MakeGrpcWeightSource(
    const std::string& address, const std::string& peer_name,
    const Credentials& credentials);

}  // namespace tern

#endif  // WORKER_GRPC_WEIGHT_SOURCE_H_
