#ifndef CLI_COMMAND_H_
#define CLI_COMMAND_H_

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "cli/arguments.h"

namespace tern {

// What `tern` ends with.
enum ExitCode : int {
  kExitOk = 0,
  kExitFailed = 1,       // the cluster refused or failed what was asked
  kExitUsage = 2,        // the command line is wrong
  kExitUnavailable = 3,  // UNAVAILABLE: the one worth trying again
  kExitDeadline = 4,     // DEADLINE_EXCEEDED
  kExitInterrupted = 130,
};

// A subcommand of `tern`.
struct Command {
  std::string name;
  std::string summary;  // one line, for the list of commands
  std::string usage;    // from "usage:" to what there is to know, with a \n
  // Source files that define the flags it takes.
  std::vector<absl::string_view> flag_files;
  ExitCode (*run)(const Arguments& arguments);
};

}  // namespace tern

#endif  // CLI_COMMAND_H_
