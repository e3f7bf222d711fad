#include "tools/report_status.h"

#include <iostream>

namespace tern {

ExitCode ReportStatus(const absl::Status& status) {
  if (status.ok()) return kExitOk;
  std::cerr << "tern: " << absl::StatusCodeToString(status.code()) << ": "
            << status.message() << std::endl;
  if (absl::IsAlreadyExists(status)) {
    std::cerr << "hint: --force replaces it" << std::endl;
  }
  return absl::IsCancelled(status) ? kExitInterrupted : kExitFailed;
}

}  // namespace tern
