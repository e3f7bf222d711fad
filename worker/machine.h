#ifndef WORKER_MACHINE_H_
#define WORKER_MACHINE_H_

#include <cstdint>
#include <string>
#include <vector>

namespace tern {

// What this process may use of the machine. Linux; read anew with each call.

// Ids of the processors that the calling thread may run on, which cpusets of
// control groups limit too. Empty when it cannot be told.
std::vector<int> AllowedProcessors();

// Processors' worth of time that the CPU quotas of the control groups (versions
// 1 and 2) grant, such as 1.5; infinity without a quota.
double ProcessorQuota();

// How many processors: the smaller of these two, rounded up. At least 1.
int AvailableProcessors();

// Bytes of memory that can still be taken: the smaller of what the system has
// available and what the control groups leave. 0 when it cannot be told.
int64_t AvailableMemoryBytes();

// Bytes of the last (third) caches that the processors of the affinity mask
// have together. 0 when it cannot be told.
int64_t LastCacheBytes();

// For people, such as "AMD EPYC 9354 32-Core Processor"; "unknown" if not told.
std::string ProcessorName();

// Bytes of this process that are resident now. 0 when it cannot be told.
int64_t ResidentBytes();

}  // namespace tern

#endif  // WORKER_MACHINE_H_
