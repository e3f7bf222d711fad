#ifndef UTIL_SERVER_MAIN_H_
#define UTIL_SERVER_MAIN_H_

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"

// What the main() of a server does around its own work.
namespace tern {

// Reads the flags from the command line. --help (or -h) prints `usage` and the
// flags that `flag_files` define, see FlagsHelp(), and ends the process with 0.
// A flag that does not exist, a bad value or an argument that is no flag is
// said on stderr and ends it with 1.
void ParseServerFlags(int argc, char** argv, absl::string_view usage,
                      absl::Span<const absl::string_view> flag_files);

// Makes SIGINT and SIGTERM wait for WaitForShutdownSignal() in this thread and
// in all that it starts from now on: to be called before there are others.
void BlockShutdownSignals();

// Waits for SIGINT or SIGTERM and returns its number. From then on another one
// ends the process at once, so that a shutdown that hangs can be cut short.
// REQUIRES: BlockShutdownSignals().
int WaitForShutdownSignal();

// Waits for one at most so long: 0 when none came. REQUIRES: as above.
int ShutdownSignalWithin(absl::Duration timeout);

// Writes "PORT\n" to `path`, all at once: a reader finds no file or the whole
// number. Does nothing when `path` is empty.
absl::Status WritePortFile(const std::string& path, int port);

}  // namespace tern

#endif  // UTIL_SERVER_MAIN_H_
