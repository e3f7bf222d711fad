#ifndef COORDINATOR_KEPT_KV_FILE_H_
#define COORDINATOR_KEPT_KV_FILE_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "coordinator/kept_kv_proto.h"

namespace tern {

// What workers' KV blocks hold, from one coordinator to the next: a file
// "kept_kv.state" beside the journal (coordinator/record_file.h), written by a
// coordinator that ends in good order, when its pipelines run nothing any more.
// The next one removes it as it reads it: from then on the blocks change.

// UNAVAILABLE when the system refuses, RESOURCE_EXHAUSTED when it is too much
// for a record.
absl::Status WriteKeptKvFile(const std::string& folder,
                             const std::vector<KeptKvOfModel>& all);

// Reads and removes the file. Nothing without one, and, loudly, when it is
// damaged or cannot be removed: then everything is computed again.
std::vector<KeptKvOfModel> TakeKeptKvFile(const std::string& folder);

}  // namespace tern

#endif  // COORDINATOR_KEPT_KV_FILE_H_
