#ifndef COORDINATOR_KEPT_KV_PROTO_H_
#define COORDINATOR_KEPT_KV_PROTO_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "coordinator/kept_kv.h"

namespace tern {

// What workers' KV blocks hold, of which model.
struct KeptKvOfModel {
  std::string model;
  uint64_t fingerprint = 0;
  KeptKv kept;
};

// As it is kept on disk, and the way back: DATA_LOSS for anything else.
std::string EncodeKeptKvs(const std::vector<KeptKvOfModel>& all);
absl::StatusOr<std::vector<KeptKvOfModel>> ParseKeptKvs(
    absl::string_view bytes);

}  // namespace tern

#endif  // COORDINATOR_KEPT_KV_PROTO_H_
