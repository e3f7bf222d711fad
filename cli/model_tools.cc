#include "cli/model_tools.h"

#include "cli/sibling_program.h"

namespace tern {
namespace {

constexpr ModelTool kTools[] = {
    {"inspect", "say what a model is and what it needs"},
    {"convert", "write a model with its matrices in another type"},
    {"synth", "write a model of random weights"},
    {"perplexity", "measure how well a model predicts a text"},
};

}  // namespace

absl::Span<const ModelTool> ModelTools() { return kTools; }

bool IsModelTool(absl::string_view name) {
  for (const ModelTool& tool : kTools) {
    if (name == tool.name) return true;
  }
  return false;
}

ExitCode RunModelTool(const std::vector<std::string>& words) {
  return RunSiblingProgram({"tern_model", "tools"},
                           words.empty() ? "" : words[0], words);
}

}  // namespace tern
