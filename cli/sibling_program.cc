#include "cli/sibling_program.h"

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

std::vector<std::string> PathsOf(const SiblingProgram& program) {
  const std::string directory = OwnDirectory();
  return {absl::StrCat(directory, "/", program.name),
          absl::StrCat(directory, "/../", program.folder, "/", program.name)};
}

ExitCode RunSiblingProgram(const SiblingProgram& program,
                           absl::string_view command,
                           const std::vector<std::string>& words) {
  const std::vector<std::string> paths = PathsOf(program);
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
  std::cerr << "tern: `tern " << command << "` needs the program "
            << program.name << ", which is at none of "
            << absl::StrJoin(paths, ", ")
            << "\nhint: install it beside tern, or build //" << program.folder
            << ":" << program.name << std::endl;
  return kExitFailed;
}

}  // namespace tern
