#ifndef TESTS_INTEGRATION_PROCESS_H_
#define TESTS_INTEGRATION_PROCESS_H_

#include <sys/types.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace tern {

// A child process whose standard error goes to a file. It dies with this
// object, and with this process. Not thread-safe.
class Process {
 public:
  // Starts argv[0] (a path) with stdout and stderr appended to `log_file`.
  static absl::StatusOr<std::unique_ptr<Process>> Start(
      const std::vector<std::string>& argv, const std::string& log_file);

  // Kills it (SIGKILL) if it still runs.
  ~Process();

  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  // Sends a signal.
  void Signal(int signal);

  // Waits for the end. The value is the exit code, or 128 + the signal that
  // ended it. DEADLINE_EXCEEDED when it has not ended in time.
  absl::StatusOr<int> Wait(absl::Duration timeout);

  // Whether it still runs.
  bool running();

  // The log so far.
  std::string Log() const;

  pid_t pid() const { return pid_; }

 private:
  Process(pid_t pid, int pid_fd, std::string log_file)
      : pid_(pid), pid_fd_(pid_fd), log_file_(std::move(log_file)) {}

  const pid_t pid_;
  const int pid_fd_;  // becomes readable when the process ends
  const std::string log_file_;
  int exit_code_ = -1;  // -1 while it runs
};

// Waits until `path` exists (servers write their --port_file by renaming it
// into place), or `process` ends, and returns its contents.
absl::StatusOr<std::string> WaitForFile(const std::string& path,
                                        Process* process,
                                        absl::Duration timeout);

}  // namespace tern

#endif  // TESTS_INTEGRATION_PROCESS_H_
