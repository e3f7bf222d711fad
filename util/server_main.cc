#include "util/server_main.h"

#include <pthread.h>
#include <signal.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <fstream>
#include <iostream>
#include <vector>

#include "absl/flags/parse.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "util/flags_help.h"
#include "util/logging.h"

namespace tern {
namespace {

sigset_t ShutdownSignals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGTERM);
  return set;
}

}  // namespace

void ParseServerFlags(int argc, char** argv, absl::string_view usage,
                      absl::Span<const absl::string_view> flag_files) {
#ifdef NDEBUG
  // Packages of Abseil may look for deadlocks at each lock, under a lock of all
  // locks. Tests profit from it; servers pay.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
#endif
  for (int i = 1; i < argc; ++i) {
    const absl::string_view argument = argv[i];
    if (argument == "--help" || argument == "-help" || argument == "-h") {
      std::cout << usage << "\nFlags, with their defaults:\n"
                << FlagsHelp(flag_files) << std::flush;
      std::exit(0);
    }
  }
  const std::vector<char*> rest = absl::ParseCommandLine(argc, argv);
  if (rest.size() > 1) {
    std::cerr << "ERROR: '" << rest[1]
              << "' is no flag; see --help for those there are" << std::endl;
    std::exit(1);
  }
}

void BlockShutdownSignals() {
  const sigset_t set = ShutdownSignals();
  CHECK(pthread_sigmask(SIG_BLOCK, &set, nullptr) == 0);
}

int WaitForShutdownSignal() {
  const sigset_t set = ShutdownSignals();
  int signal = 0;
  CHECK(sigwait(&set, &signal) == 0);
  CHECK(pthread_sigmask(SIG_UNBLOCK, &set, nullptr) == 0);
  return signal;
}

int ShutdownSignalWithin(absl::Duration timeout) {
  const sigset_t set = ShutdownSignals();
  const timespec time = absl::ToTimespec(timeout);
  const int signal = sigtimedwait(&set, nullptr, &time);
  return signal > 0 ? signal : 0;
}

absl::Status WritePortFile(const std::string& path, int port) {
  if (path.empty()) return absl::OkStatus();
  const std::string unfinished = absl::StrCat(path, ".new");
  std::ofstream file(unfinished);
  file << port << "\n";
  file.close();
  if (!file || std::rename(unfinished.c_str(), path.c_str()) != 0) {
    return absl::UnavailableError(absl::StrCat(
        "cannot write the port file ", path, ": ", std::strerror(errno),
        "; name one in a folder that exists and is writable"));
  }
  return absl::OkStatus();
}

}  // namespace tern
