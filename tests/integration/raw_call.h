#ifndef TESTS_INTEGRATION_RAW_CALL_H_
#define TESTS_INTEGRATION_RAW_CALL_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "grpcpp/channel.h"

namespace tern {

// Calls of services whose generated code is inside the gRPC library and not for
// others.

// Waits until grpc.health.v1 says that `service` of the server is SERVING, or
// (with `serving` false) that it is not. DEADLINE_EXCEEDED with the last answer
// when that does not happen in time; other statuses as the server gives them.
// Broken connections are made anew.
absl::Status WaitForHealth(const std::shared_ptr<grpc::Channel>& channel,
                           const std::string& service, bool serving,
                           absl::Duration timeout);

// The answer of grpc.reflection.v1alpha to "which services are there?", as it
// is on the wire: the names are in it. Empty when the call failed.
std::string ReflectedServices(const std::shared_ptr<grpc::Channel>& channel);

}  // namespace tern

#endif  // TESTS_INTEGRATION_RAW_CALL_H_
