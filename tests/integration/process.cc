#include "tests/integration/process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/inotify.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <sstream>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace tern {
namespace {

bool ReadFile(const std::string& path, std::string* contents) {
  std::ifstream in(path, std::ios::binary);
  if (!in) return false;
  std::ostringstream out;
  out << in.rdbuf();
  *contents = out.str();
  return true;
}

int Milliseconds(absl::Duration duration) {
  return std::max<int64_t>(0, absl::ToInt64Milliseconds(duration));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Process>> Process::Start(
    const std::vector<std::string>& argv, const std::string& log_file) {
  const int log = open(log_file.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0644);
  if (log < 0) return absl::InternalError(absl::StrCat("open ", log_file));
  std::vector<char*> args;
  for (const std::string& arg : argv) {
    args.push_back(const_cast<char*>(arg.c_str()));
  }
  args.push_back(nullptr);
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid == 0) {
    // Only calls that are safe between fork and exec.
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(126);
    dup2(log, STDOUT_FILENO);
    dup2(log, STDERR_FILENO);
    execv(args[0], args.data());
    _exit(127);
  }
  close(log);
  if (pid < 0) return absl::InternalError("fork failed");
  const int pid_fd = static_cast<int>(syscall(SYS_pidfd_open, pid, 0));
  if (pid_fd < 0) return absl::InternalError("pidfd_open failed");
  return std::unique_ptr<Process>(new Process(pid, pid_fd, log_file));
}

Process::~Process() {
  if (running()) {
    Signal(SIGKILL);
    Wait(absl::Seconds(10)).status().IgnoreError();
  }
  close(pid_fd_);
}

void Process::Signal(int signal) {
  if (exit_code_ < 0) kill(pid_, signal);
}

absl::StatusOr<int> Process::Wait(absl::Duration timeout) {
  if (exit_code_ >= 0) return exit_code_;
  pollfd fd = {pid_fd_, POLLIN, 0};
  if (poll(&fd, 1, Milliseconds(timeout)) != 1) {
    return absl::DeadlineExceededError(
        absl::StrCat("process ", pid_, " still runs; its log:\n", Log()));
  }
  int status = 0;
  waitpid(pid_, &status, 0);
  exit_code_ = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return exit_code_;
}

bool Process::running() { return !Wait(absl::ZeroDuration()).ok(); }

std::string Process::Log() const {
  std::string log;
  ReadFile(log_file_, &log);
  return log;
}

absl::StatusOr<std::string> WaitForFile(const std::string& path,
                                        Process* process,
                                        absl::Duration timeout) {
  const absl::Time deadline = absl::Now() + timeout;
  const int watch = inotify_init1(IN_NONBLOCK);
  absl::Cleanup closer = [watch] { close(watch); };
  const std::string folder = path.substr(0, path.rfind('/'));
  // Watched before the first look, so that nothing falls between them.
  if (inotify_add_watch(watch, folder.c_str(), IN_MOVED_TO | IN_CLOSE_WRITE) <
      0) {
    return absl::InternalError(absl::StrCat("cannot watch ", folder));
  }
  std::string contents;
  while (!ReadFile(path, &contents) || contents.empty()) {
    if (!process->running()) {
      return absl::UnavailableError(
          absl::StrCat("the process ended; its log:\n", process->Log()));
    }
    if (absl::Now() > deadline) {
      return absl::DeadlineExceededError(
          absl::StrCat(path, " has not appeared; the log:\n", process->Log()));
    }
    pollfd fd = {watch, POLLIN, 0};
    // Wakes now and then to see whether the process still runs.
    poll(&fd, 1, 200);
    char events[4096];
    while (read(watch, events, sizeof(events)) > 0) {
    }
  }
  return contents;
}

}  // namespace tern
