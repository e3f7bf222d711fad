#ifndef BENCH_WORKLOAD_H_
#define BENCH_WORKLOAD_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "bench/lengths.h"

namespace tern {

// What requests of a load ask for.
struct WorkloadOptions {
  std::string model;  // empty: the cluster's only one
  int vocab_size = 0;
  int context_length = 0;
  Lengths prompt_tokens;
  Lengths output_tokens;
  // So many tokens at the beginning of each prompt are those of its group,
  // which is one of `prefix_groups`. They count among the prompt's tokens, and
  // each prompt has one more at the least.
  int shared_prefix_tokens = 0;
  int prefix_groups = 1;
  // This part of the requests, in [0, 1], is cancelled by the client after a
  // random number of tokens below the answer's.
  double cancel_share = 0;
  bool ignore_eos = true;
  float temperature = 1;
  // Above zero: streams may be resumed; see StreamGenerateRequest.
  absl::Duration resume_window = absl::ZeroDuration();
  uint64_t seed = 0;
};

// One request.
struct PlannedRequest {
  std::vector<int32_t> prompt;
  int output_tokens = 0;     // the most
  int cancel_at_tokens = 0;  // 0: let it end
  uint64_t sampling_seed = 0;
};

// Makes requests: the same number, the same request, whatever came before it.
// Immutable.
class Workload {
 public:
  explicit Workload(const WorkloadOptions& options);

  // INVALID_ARGUMENT when requests could not be what was asked: a prefix longer
  // than prompts, or lengths beyond the context.
  static absl::Status Check(const WorkloadOptions& options);

  PlannedRequest Make(int64_t index) const;

  const WorkloadOptions& options() const { return options_; }

 private:
  const WorkloadOptions options_;
  std::vector<std::vector<int32_t>> prefixes_;  // by group
};

}  // namespace tern

#endif  // BENCH_WORKLOAD_H_
