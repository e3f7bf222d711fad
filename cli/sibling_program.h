#ifndef CLI_SIBLING_PROGRAM_H_
#define CLI_SIBLING_PROGRAM_H_

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "cli/command.h"

namespace tern {

// A program that does the work of some commands, so that a client of a cluster
// need not carry what computes models.
struct SiblingProgram {
  absl::string_view name;
  absl::string_view folder;  // of the source tree, where a build puts it
};

// Where it is looked for, in that order: beside this program, and where a build
// puts it.
std::vector<std::string> PathsOf(const SiblingProgram& program);

// Becomes `program WORDS...`, the program being at one of PathsOf(). `command`
// is what the user typed after `tern`. Returns only when that cannot be, after
// saying on stderr where it looked.
ExitCode RunSiblingProgram(const SiblingProgram& program,
                           absl::string_view command,
                           const std::vector<std::string>& words);

}  // namespace tern

#endif  // CLI_SIBLING_PROGRAM_H_
