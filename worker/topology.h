#ifndef WORKER_TOPOLOGY_H_
#define WORKER_TOPOLOGY_H_

#include <vector>

#include "absl/strings/string_view.h"
#include "worker/thread_placement.h"

namespace tern {

// The processors of this machine with their cores and memory nodes, as hwloc
// finds them (or the environment variable HWLOC_SYNTHETIC describes); empty
// when it finds nothing. Takes some milliseconds.
std::vector<Processor> MachineProcessors();

// The same of a machine in hwloc's words, such as "node:2 core:4 pu:2";
// empty for words that hwloc does not know. For tests.
std::vector<Processor> SyntheticProcessors(absl::string_view description);

// What this process may use, by MachineProcessors() and worker/machine.h.
ProcessorGrant ThisProcessGrant();

}  // namespace tern

#endif  // WORKER_TOPOLOGY_H_
