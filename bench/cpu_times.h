#ifndef BENCH_CPU_TIMES_H_
#define BENCH_CPU_TIMES_H_

#include <sys/types.h>

#include <map>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace tern {

// CPU time that a process has used since its start. Linux.
struct CpuTimes {
  absl::Duration total;  // threads that have ended included
  // Of the threads that live, by name; those of one name together.
  std::map<std::string, absl::Duration> by_thread_name;
};

// NOT_FOUND when there is no such process, or it is not ours to look at.
absl::StatusOr<CpuTimes> ReadCpuTimes(pid_t pid);

}  // namespace tern

#endif  // BENCH_CPU_TIMES_H_
