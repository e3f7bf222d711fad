#ifndef COORDINATOR_WEIGHT_PEERS_H_
#define COORDINATOR_WEIGHT_PEERS_H_

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "coordinator/cluster_view.h"

namespace tern {

// Workers that a list of those who may hold a model's weights has at most.
inline constexpr int kWeightPeersMax = 16;

// Addresses of living workers that may hold weights of `model`: first those
// with its files, then those that fetch. Whether they have what somebody looks
// for, they say themselves. Pure.
std::vector<std::string> WeightPeersOf(const ClusterView& cluster,
                                       absl::string_view model);

}  // namespace tern

#endif  // COORDINATOR_WEIGHT_PEERS_H_
