#ifndef CLI_STATUS_WHY_H_
#define CLI_STATUS_WHY_H_

#include <string>

#include "proto/tern/v1/cluster.pb.h"

namespace tern {

// What `tern status --why` prints below the rest: what is expected of each
// pipeline and what holds it back, and why spares have no stage.
std::string FormatWhy(const v1::ListWorkersResponse& workers);

// "worker w takes 3.1 times as long as it measured at its start".
std::string DescribeSlowness(const v1::Worker& worker);

}  // namespace tern

#endif  // CLI_STATUS_WHY_H_
