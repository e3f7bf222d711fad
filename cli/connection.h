#ifndef CLI_CONNECTION_H_
#define CLI_CONNECTION_H_

#include <string>

#include "client/client.h"

namespace tern {

// How to reach the cluster, from --server, --deadline, --peer_name and the
// credential flags.
ClientOptions ClientOptionsFromFlags();

inline constexpr char kConnectionFlagsFile[] = "cli/connection.cc";

// Cancelled by the first Ctrl-C (or SIGTERM); a second one ends the process.
// REQUIRES: BlockShutdownSignals() in main().
Cancellation* CancelledByUser();

}  // namespace tern

#endif  // CLI_CONNECTION_H_
