#ifndef WORKER_THREAD_PLACEMENT_H_
#define WORKER_THREAD_PLACEMENT_H_

#include <limits>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace tern {

// A hardware thread.
struct Processor {
  int id;    // the system's number
  int core;  // processors of one core share it; neighbours have close numbers
  int node;  // of the memory that is nearest
};

// What a process may use of which machine.
struct ProcessorGrant {
  // Of the whole machine, in any order. What is missing counts as a core of its
  // own, on node 0.
  std::vector<Processor> machine;
  // Ids that the process may run on; empty when it cannot be told.
  std::vector<int> allowed;
  // Processors' worth of time that the control group gives; may be a fraction.
  double quota = std::numeric_limits<double>::infinity();
};

// Whether threads are bound to processors.
enum class PinMode { kAuto, kOn, kOff };

// "auto", "on" or "off". False for anything else.
bool ParsePinMode(absl::string_view name, PinMode* mode);

// Where the threads of a pool run.
struct ThreadPlacement {
  int n_threads = 1;
  // Id for each thread, [n_threads]; empty when they are not bound.
  std::vector<int> processors;
  // Memory node of each thread, ascending, [n_threads]; empty when not bound.
  std::vector<int> nodes;
  // Why they are bound, or why not; for people.
  std::string reason;
};

// Decides where the threads run. Pure.
//
// Bound threads cannot give way to what else runs on their processors. So kAuto
// binds them only when they take every core that the process may use, each a
// processor of its own, and either these are a part of the machine, given to
// the process and so hardly to others, or of several memory nodes, where
// keeping near the memory gains more than giving way. It never does under a
// quota below these processors: a thread that the system stops for having used
// up its time could not be made up for. kOn binds all the same;
// INVALID_ARGUMENT when there are more threads than processors.
//
// One thread on each core comes before two on any, and the threads spread
// evenly over the nodes; threads of one node follow each other.
//
// REQUIRES: n_threads >= 1.
absl::StatusOr<ThreadPlacement> PlaceThreads(const ProcessorGrant& grant,
                                             int n_threads, PinMode mode);

// Nodes of the placement, ascending, each once; empty when not bound.
std::vector<int> NodesOf(const ThreadPlacement& placement);

// Such as "bound to processors 0-3,8 of 2 nodes: they take every core" or "not
// bound: ..."; for people.
std::string Describe(const ThreadPlacement& placement);

}  // namespace tern

#endif  // WORKER_THREAD_PLACEMENT_H_
