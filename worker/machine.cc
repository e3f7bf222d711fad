#include "worker/machine.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>
#include <map>
#include <sstream>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"

namespace tern {
namespace {

constexpr int64_t kUnlimited = std::numeric_limits<int64_t>::max();

// First line of a file; empty when it cannot be read.
std::string FirstLine(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

// A number in a file; `fallback` for anything else, such as "max".
int64_t NumberIn(const std::string& path, int64_t fallback) {
  int64_t value;
  return absl::SimpleAtoi(FirstLine(path), &value) ? value : fallback;
}

// Where the control group of `controller` and its ancestors may lie. A
// container sees its own group at the root of the mount, while
// /proc/self/cgroup may tell a path that is not there: unreadable folders count
// as no limit.
std::vector<std::string> GroupFolders(absl::string_view controller) {
  std::vector<std::string> folders;
  std::ifstream groups("/proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {
    const std::vector<std::string> fields =
        absl::StrSplit(line, absl::MaxSplits(':', 2));
    if (fields.size() != 3) continue;
    std::string mount;
    if (fields[1].empty()) {
      mount = "/sys/fs/cgroup";
    } else {
      const std::vector<std::string> names = absl::StrSplit(fields[1], ',');
      if (std::find(names.begin(), names.end(), controller) == names.end()) {
        continue;
      }
      mount = absl::StrCat("/sys/fs/cgroup/", controller);
    }
    std::string path(absl::StripSuffix(fields[2], "/"));
    while (true) {
      folders.push_back(absl::StrCat(mount, path));
      if (path.empty()) break;
      path.resize(path.rfind('/') == std::string::npos ? 0 : path.rfind('/'));
    }
  }
  return folders;
}

// Value of a "key: number kB" line, in bytes; -1 when there is none.
int64_t ProcField(const std::string& path, absl::string_view key) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (!absl::StartsWith(line, key)) continue;
    std::istringstream fields(line.substr(key.size()));
    int64_t value;
    if (fields >> value) return value * 1024;
  }
  return -1;
}

}  // namespace

std::vector<int> AllowedProcessors() {
  std::vector<int> ids;
  cpu_set_t mask;
  if (sched_getaffinity(0, sizeof(mask), &mask) != 0) return ids;
  for (int id = 0; id < CPU_SETSIZE; ++id) {
    if (CPU_ISSET(id, &mask)) ids.push_back(id);
  }
  return ids;
}

double ProcessorQuota() {
  double granted = std::numeric_limits<double>::infinity();
  for (const std::string& folder : GroupFolders("cpu")) {
    int64_t quota = -1;
    int64_t period = 0;
    const std::vector<std::string> fields =
        absl::StrSplit(FirstLine(absl::StrCat(folder, "/cpu.max")), ' ');
    if (fields.size() == 2) {
      if (!absl::SimpleAtoi(fields[0], &quota) ||
          !absl::SimpleAtoi(fields[1], &period)) {
        continue;
      }
    } else {
      quota = NumberIn(absl::StrCat(folder, "/cpu.cfs_quota_us"), -1);
      period = NumberIn(absl::StrCat(folder, "/cpu.cfs_period_us"), 0);
    }
    if (quota > 0 && period > 0) {
      granted = std::min(granted, static_cast<double>(quota) / period);
    }
  }
  return granted;
}

int AvailableProcessors() {
  double n = static_cast<double>(AllowedProcessors().size());
  if (n == 0) n = static_cast<double>(sysconf(_SC_NPROCESSORS_ONLN));
  return static_cast<int>(
      std::max(1.0, std::ceil(std::min(n, ProcessorQuota()))));
}

int64_t AvailableMemoryBytes() {
  int64_t available = ProcField("/proc/meminfo", "MemAvailable:");
  if (available < 0) available = kUnlimited;
  for (const std::string& folder : GroupFolders("memory")) {
    int64_t limit = NumberIn(absl::StrCat(folder, "/memory.max"), kUnlimited);
    int64_t used = NumberIn(absl::StrCat(folder, "/memory.current"), 0);
    if (limit == kUnlimited) {
      limit =
          NumberIn(absl::StrCat(folder, "/memory.limit_in_bytes"), kUnlimited);
      used = NumberIn(absl::StrCat(folder, "/memory.usage_in_bytes"), 0);
    }
    if (limit == kUnlimited) continue;
    // What is used counts the page cache too, which gives way: more may be
    // left than this says, never less.
    available = std::min(available, std::max<int64_t>(0, limit - used));
  }
  return available == kUnlimited ? 0 : available;
}

int64_t LastCacheBytes() {
  // Not by sysconf: what it says of AMD's is at times that of many sockets.
  std::map<std::string, int64_t> kilobytes;  // by the processors that share one
  for (const int cpu : AllowedProcessors()) {
    const std::string cache =
        absl::StrCat("/sys/devices/system/cpu/cpu", cpu, "/cache/index3/");
    const std::string size = FirstLine(cache + "size");  // such as "32768K"
    int64_t value;
    if (!absl::SimpleAtoi(absl::StripSuffix(size, "K"), &value)) continue;
    kilobytes[FirstLine(cache + "shared_cpu_list")] = value;
  }
  int64_t sum = 0;
  for (const auto& [shared_by, value] : kilobytes) sum += value * 1024;
  return sum;
}

std::string ProcessorName() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (!absl::StartsWith(line, "model name")) continue;
    const size_t colon = line.find(':');
    if (colon != std::string::npos && colon + 2 <= line.size()) {
      return line.substr(colon + 2);
    }
  }
  return "unknown";
}

int64_t ResidentBytes() {
  return std::max<int64_t>(0, ProcField("/proc/self/status", "VmRSS:"));
}

}  // namespace tern
