#ifndef COORDINATOR_OPERATOR_STATE_PROTO_H_
#define COORDINATOR_OPERATOR_STATE_PROTO_H_

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/optional.h"

namespace tern {

// What operators have changed by call since the coordinator was first started,
// and the next one does again. A plain value.
struct OperatorState {
  struct LoadedModel {
    std::string name;  // in the cluster
    std::string file;  // in --models_dir
    absl::optional<int> n_stages;
    absl::optional<int64_t> kv_cache_tokens;
  };
  std::vector<LoadedModel> models;  // in the order in which they were loaded
  std::set<std::string> cordoned;   // ids of workers out of service
};

// As it is kept on disk, and the way back: DATA_LOSS for anything else.
std::string EncodeOperatorState(const OperatorState& state);
absl::StatusOr<OperatorState> ParseOperatorState(absl::string_view bytes);

}  // namespace tern

#endif  // COORDINATOR_OPERATOR_STATE_PROTO_H_
