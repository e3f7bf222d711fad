#ifndef CLI_MODEL_TOOLS_H_
#define CLI_MODEL_TOOLS_H_

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "cli/command.h"

namespace tern {

// Commands of `tern` that work on model files. They are another program's,
// tern_model, so that a client of a cluster need not carry what computes
// models.
struct ModelTool {
  absl::string_view name;
  absl::string_view summary;  // one line, for the list of commands
};
absl::Span<const ModelTool> ModelTools();

bool IsModelTool(absl::string_view name);

// Where tern_model may be, first choice first, for a `tern` in `directory`:
// beside it, or where a build puts it.
std::vector<std::string> ModelToolPaths(const std::string& directory);

// Becomes `tern_model WORDS...`. Returns only when that cannot be, after saying
// on stderr where it looked.
ExitCode RunModelTool(const std::vector<std::string>& words);

}  // namespace tern

#endif  // CLI_MODEL_TOOLS_H_
