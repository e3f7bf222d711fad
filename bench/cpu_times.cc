#include "bench/cpu_times.h"

#include <dirent.h>
#include <time.h>

#include <cstdint>
#include <fstream>

#include "absl/cleanup/cleanup.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace tern {

absl::StatusOr<CpuTimes> ReadCpuTimes(pid_t pid) {
  const absl::Status gone = absl::NotFoundError(
      absl::StrCat("there is no process ", pid, " to read the CPU times of"));
  CpuTimes times;
  clockid_t clock;
  timespec total;
  if (pid <= 0 || clock_getcpuclockid(pid, &clock) != 0 ||
      clock_gettime(clock, &total) != 0) {
    return gone;
  }
  times.total = absl::DurationFromTimespec(total);
  const std::string folder = absl::StrCat("/proc/", pid, "/task");
  DIR* const tasks = opendir(folder.c_str());
  if (tasks == nullptr) return gone;
  const absl::Cleanup closer = [tasks] { closedir(tasks); };
  while (const dirent* const task = readdir(tasks)) {
    if (task->d_name[0] == '.') continue;
    const std::string path = absl::StrCat(folder, "/", task->d_name);
    std::string name;
    int64_t run_ns = 0;
    std::getline(std::ifstream(path + "/comm"), name);
    // First of three numbers. A thread may end while it is looked at.
    if (name.empty() || !(std::ifstream(path + "/schedstat") >> run_ns)) {
      continue;
    }
    times.by_thread_name[name] += absl::Nanoseconds(run_ns);
  }
  return times;
}

}  // namespace tern
