#include "cli/health.h"

#include <iostream>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "cli/connection.h"
#include "cli/report.h"
#include "client/client.h"
#include "util/credential_flags.h"
#include "util/status_macros.h"

namespace tern {
namespace {

absl::StatusOr<bool> Ask(const std::string& service,
                         const ClientOptions& options) {
  ASSIGN_OR_RETURN(const std::unique_ptr<Client> client,
                   Client::Create(options));
  CallOptions call;
  call.cancellation = CancelledByUser();
  return client->IsServing(service, call);
}

ExitCode Run(const Arguments& arguments) {
  if (arguments.positional.size() > 1) {
    return ReportUsage("health", "one service at a time");
  }
  const ClientOptions options = ClientOptionsFromFlags();
  const auto serving =
      Ask(arguments.positional.empty() ? "" : arguments.positional[0], options);
  if (!serving.ok()) return Report(serving.status(), options.server);
  std::cout << (*serving ? "serving" : "not serving") << std::endl;
  return *serving ? kExitOk : kExitFailed;
}

}  // namespace

Command HealthCommand() {
  return {"health",
          "ask a coordinator or worker whether it serves",
          R"(usage: tern health [FLAGS] [SERVICE]

Asks the health service (grpc.health.v1) of a coordinator, or of a worker with
--peer_name=tern-worker, and ends with 0 if SERVICE is serving: "liveness" is
from the start; "readiness" is while a coordinator has a pipeline that takes
requests, or a worker is registered. Meant for the probes of containers.
)",
          {kConnectionFlagsFile, kCredentialFlagsFile},
          &Run};
}

}  // namespace tern
