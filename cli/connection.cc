#include "cli/connection.h"

#include <cstdlib>
#include <thread>

#include "absl/flags/flag.h"
#include "absl/time/time.h"
#include "util/credential_flags.h"
#include "util/server_main.h"

ABSL_FLAG(std::string, server, "",
          "Address of the coordinator, host:port, or several, separated by "
          "commas, of which one serves. Default: $TERN_SERVER, or "
          "127.0.0.1:7600 when that is not set.");
ABSL_FLAG(absl::Duration, deadline, absl::ZeroDuration(),
          "Time for a call with all its retries, such as 30s or 5m. 0: as long "
          "as it takes.");
ABSL_FLAG(std::string, peer_name, tern::kCoordinatorName,
          "Name that the coordinator's certificate must carry. Empty: the host "
          "in --server.");

namespace tern {

ClientOptions ClientOptionsFromFlags() {
  ClientOptions options;
  options.server = absl::GetFlag(FLAGS_server);
  if (options.server.empty()) {
    const char* server = std::getenv("TERN_SERVER");
    options.server =
        server != nullptr && *server != '\0' ? server : "127.0.0.1:7600";
  }
  options.credentials = CredentialOptionsFromFlags();
  options.peer_name = absl::GetFlag(FLAGS_peer_name);
  if (absl::GetFlag(FLAGS_deadline) > absl::ZeroDuration()) {
    options.default_deadline = absl::GetFlag(FLAGS_deadline);
  }
  return options;
}

Cancellation* CancelledByUser() {
  // Never deleted: its thread waits for signals until the process ends.
  static Cancellation* const cancellation = [] {
    auto* c = new Cancellation;
    std::thread([c] {
      WaitForShutdownSignal();
      c->Cancel();
    }).detach();
    return c;
  }();
  return cancellation;
}

}  // namespace tern
