#include "coordinator/weight_peers.h"

#include <algorithm>

namespace tern {

std::vector<std::string> WeightPeersOf(const ClusterView& cluster,
                                       absl::string_view model) {
  std::vector<std::string> peers;
  std::vector<std::string> fetchers;
  for (const auto& [id, worker] : cluster.workers()) {
    // One that is about to leave still has them.
    if (!worker.IsAlive()) continue;
    const WorkerRegistration& r = worker.registration;
    if (std::find(r.models.begin(), r.models.end(), model) != r.models.end()) {
      peers.push_back(r.address);
    } else if (r.can_fetch_weights) {
      fetchers.push_back(r.address);
    }
  }
  peers.insert(peers.end(), fetchers.begin(), fetchers.end());
  if (peers.size() > kWeightPeersMax) peers.resize(kWeightPeersMax);
  return peers;
}

}  // namespace tern
