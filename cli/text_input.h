#ifndef CLI_TEXT_INPUT_H_
#define CLI_TEXT_INPUT_H_

#include <string>

#include "absl/status/statusor.h"
#include "cli/arguments.h"

namespace tern {

// The text a command works on: its one argument; or the file `path` when that
// is not empty; or, without both or with the argument "-", all of stdin.
// INVALID_ARGUMENT for two arguments, an argument beside a file, an empty text,
// and a file that cannot be read.
absl::StatusOr<std::string> ReadText(const Arguments& arguments,
                                     const std::string& path);

}  // namespace tern

#endif  // CLI_TEXT_INPUT_H_
