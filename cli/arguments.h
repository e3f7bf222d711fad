#ifndef CLI_ARGUMENTS_H_
#define CLI_ARGUMENTS_H_

#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace tern {

// A subcommand's command line, beside the flags' values, which are set.
//
// Abseil's own parser is not used because every flag of every subcommand would
// be accepted everywhere, and only the last of a repeated flag would be seen.
struct Arguments {
  // What is no flag, in order.
  std::vector<std::string> positional;

  // Every value given for each flag, in order. A flag that was left out is not
  // there.
  std::map<std::string, std::vector<std::string>> given;

  // --help, -help or -h was among the flags.
  bool help = false;

  bool Has(const std::string& flag) const { return given.count(flag) > 0; }
};

// Sets the flags that `flag_files` define from `words`: --name=value,
// --name value, and --name or --noname for booleans; one dash does as well.
// "--" ends the flags, and "-" is no flag. INVALID_ARGUMENT for other flags and
// bad values.
absl::StatusOr<Arguments> ParseArguments(
    absl::Span<const std::string> words,
    absl::Span<const absl::string_view> flag_files);

}  // namespace tern

#endif  // CLI_ARGUMENTS_H_
