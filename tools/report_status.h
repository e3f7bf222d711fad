#ifndef TOOLS_REPORT_STATUS_H_
#define TOOLS_REPORT_STATUS_H_

#include "absl/status/status.h"
#include "cli/command.h"

namespace tern {

// Says on stderr what went wrong; nothing when `status` is OK. Returns what the
// process is to end with.
ExitCode ReportStatus(const absl::Status& status);

}  // namespace tern

#endif  // TOOLS_REPORT_STATUS_H_
