#include "absl/flags/flag.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "tools/shared_flags.h"
#include "worker/machine.h"

ABSL_FLAG(int, threads, 0,
          "Threads. 0: all processors that the process may use.");

namespace tern {

absl::StatusOr<int> ThreadsFromFlag() {
  constexpr int kThreadsMax = 1024;
  const int threads = absl::GetFlag(FLAGS_threads);
  if (threads < 0 || threads > kThreadsMax) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--threads is ", threads, "; it can be 0 to ", kThreadsMax));
  }
  return threads == 0 ? AvailableProcessors() : threads;
}

}  // namespace tern
