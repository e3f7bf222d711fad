#include "cli/model_tools.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <unistd.h>

#include <cstring>
#include <iostream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace tern {
namespace {

constexpr ModelTool kTools[] = {
    {"inspect", "say what a model is and what it needs"},
    {"convert", "write a model with its matrices in another type"},
    {"synth", "write a model of random weights"},
    {"perplexity", "measure how well a model predicts a text"},
};

// The folder of this program, links resolved; empty when it cannot be told.
std::string OwnDirectory() {
  char path[PATH_MAX];
  const ssize_t size = readlink("/proc/self/exe", path, sizeof(path));
  if (size <= 0) return "";
  const std::string own(path, size);
  return own.substr(0, own.rfind('/'));
}

// main() blocks signals for the threads of a client; what follows would
// inherit that.
void UnblockSignals() {
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
}

}  // namespace

absl::Span<const ModelTool> ModelTools() { return kTools; }

bool IsModelTool(absl::string_view name) {
  for (const ModelTool& tool : kTools) {
    if (name == tool.name) return true;
  }
  return false;
}

std::vector<std::string> ModelToolPaths(const std::string& directory) {
  return {absl::StrCat(directory, "/tern_model"),
          absl::StrCat(directory, "/../tools/tern_model")};
}

ExitCode RunModelTool(const std::vector<std::string>& words) {
  const std::vector<std::string> paths = ModelToolPaths(OwnDirectory());
  UnblockSignals();
  for (const std::string& path : paths) {
    std::vector<std::string> strings = words;
    strings.insert(strings.begin(), path);
    std::vector<char*> arguments;
    for (std::string& string : strings) arguments.push_back(&string[0]);
    arguments.push_back(nullptr);
    execv(path.c_str(), arguments.data());
    if (errno == ENOENT || errno == ENOTDIR) continue;
    std::cerr << "tern: " << path << ": " << std::strerror(errno) << std::endl;
    return kExitFailed;
  }
  std::cerr << "tern: `tern " << (words.empty() ? "" : words[0])
            << "` needs the program tern_model, which is at none of "
            << absl::StrJoin(paths, ", ")
            << "\nhint: install it beside tern, or build //tools:tern_model"
            << std::endl;
  return kExitFailed;
}

}  // namespace tern
