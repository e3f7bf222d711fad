#ifndef CLI_MODEL_TOOLS_H_
#define CLI_MODEL_TOOLS_H_

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "cli/command.h"

namespace tern {

// Commands of `tern` that work on model files: those of the program tern_model.
struct ModelTool {
  absl::string_view name;
  absl::string_view summary;  // one line, for the list of commands
};
absl::Span<const ModelTool> ModelTools();

bool IsModelTool(absl::string_view name);

// Becomes `tern_model WORDS...`; see RunSiblingProgram().
ExitCode RunModelTool(const std::vector<std::string>& words);

}  // namespace tern

#endif  // CLI_MODEL_TOOLS_H_
