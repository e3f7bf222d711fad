#ifndef CLI_REPORT_H_
#define CLI_REPORT_H_

#include <string>

#include "absl/status/status.h"
#include "cli/command.h"

namespace tern {

// Says on stderr what went wrong, as one sentence with the status' name, and
// what may be done about it; nothing when `status` is OK. Returns what the
// process is to end with.
ExitCode Report(const absl::Status& status, const std::string& server);

// "tern: MESSAGE" and where to find help on stderr; returns kExitUsage.
ExitCode ReportUsage(const std::string& command, const std::string& message);

}  // namespace tern

#endif  // CLI_REPORT_H_
