#ifndef UTIL_FLAGS_HELP_H_
#define UTIL_FLAGS_HELP_H_

#include <string>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace tern {

// What a user should read of the flags that the named source files (such as
// "worker/main.cc") define: name, default and description, in the order of the
// files and in each of the names; at most 80 columns.
std::string FlagsHelp(absl::Span<const absl::string_view> files);

}  // namespace tern

#endif  // UTIL_FLAGS_HELP_H_
