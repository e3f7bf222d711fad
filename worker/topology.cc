#include "worker/topology.h"

#include <hwloc.h>

#include <string>

#include "worker/machine.h"

namespace tern {
namespace {

// With an empty description, this machine.
std::vector<Processor> Processors(const std::string& description) {
  std::vector<Processor> processors;
  hwloc_topology_t topology;
  if (hwloc_topology_init(&topology) != 0) return processors;
  // Without it, what a cpuset withholds from this process is not there, and the
  // cpuset looks like the whole machine.
  hwloc_topology_set_flags(topology, HWLOC_TOPOLOGY_FLAG_INCLUDE_DISALLOWED);
  // It asks every processor about itself, for what the system tells as well.
  hwloc_topology_set_components(
      topology, HWLOC_TOPOLOGY_COMPONENTS_FLAG_BLACKLIST, "x86");
  const bool loaded =
      (description.empty() ||
       hwloc_topology_set_synthetic(topology, description.c_str()) == 0) &&
      hwloc_topology_load(topology) == 0;
  const int n = loaded ? hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_PU) : 0;
  int cores = n;  // beyond the numbers of those that are told
  for (int i = 0; i < n; ++i) {
    const hwloc_obj_t pu = hwloc_get_obj_by_type(topology, HWLOC_OBJ_PU, i);
    const hwloc_obj_t core =
        hwloc_get_ancestor_obj_by_type(topology, HWLOC_OBJ_CORE, pu);
    // Fast memory beside the ordinary one is a node too; the first is ordinary.
    const int node = hwloc_bitmap_first(pu->nodeset);
    processors.push_back(
        {static_cast<int>(pu->os_index),
         core != nullptr ? static_cast<int>(core->logical_index) : cores++,
         node >= 0 ? node : 0});
  }
  hwloc_topology_destroy(topology);
  return processors;
}

}  // namespace

std::vector<Processor> MachineProcessors() { return Processors(""); }

std::vector<Processor> SyntheticProcessors(absl::string_view description) {
  return Processors(std::string(description));
}

ProcessorGrant ThisProcessGrant() {
  return {MachineProcessors(), AllowedProcessors(), ProcessorQuota()};
}

}  // namespace tern
