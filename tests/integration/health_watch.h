#ifndef TESTS_INTEGRATION_HEALTH_WATCH_H_
#define TESTS_INTEGRATION_HEALTH_WATCH_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "grpcpp/channel.h"

namespace tern {

// Waits until grpc.health.v1 says that `service` of the server is SERVING, or
// (with `serving` false) that it is not. DEADLINE_EXCEEDED with the last answer
// when that does not happen in time; other statuses as the server gives them.
absl::Status WaitForHealth(const std::shared_ptr<grpc::Channel>& channel,
                           const std::string& service, bool serving,
                           absl::Duration timeout);

}  // namespace tern

#endif  // TESTS_INTEGRATION_HEALTH_WATCH_H_
