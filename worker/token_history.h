#ifndef WORKER_TOKEN_HISTORY_H_
#define WORKER_TOKEN_HISTORY_H_

#include <cstdint>

#include "absl/container/flat_hash_map.h"

namespace tern {

// Which tokens a sequence holds, as penalties see them. A function of the
// tokens alone, not of the steps they came in: a replay rebuilds it.
class TokenHistory {
 public:
  void AddPrompt(int32_t token) { counts_.try_emplace(token, 0); }
  void AddOutput(int32_t token) { ++counts_[token]; }

  // Each token that occurred, with how often in the output; 0 for those of the
  // prompt alone.
  const absl::flat_hash_map<int32_t, int32_t>& output_counts() const {
    return counts_;
  }

 private:
  absl::flat_hash_map<int32_t, int32_t> counts_;
};

}  // namespace tern

#endif  // WORKER_TOKEN_HISTORY_H_
