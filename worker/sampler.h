#ifndef WORKER_SAMPLER_H_
#define WORKER_SAMPLER_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace tern {

// How one sequence's tokens are chosen.
struct SamplerParams {
  float temperature = 1;  // in [0, 100]; 0 is greedy
  int32_t top_k = 0;      // 0 keeps all
  float top_p = 1;        // in (0, 1]
  float min_p = 0;        // in [0, 1]
  uint64_t seed = 0;
  int32_t sample_index = 0;
};

// Room that sampling needs; one per thread, kept to avoid allocation.
struct SamplerScratch {
  struct Candidate {
    uint64_t weight;
    float z;
    int32_t id;
  };
  std::vector<Candidate> candidates;
  std::vector<Candidate> selection;
};

// Chooses the token at `position` of a sequence from its logits, one per token
// id. Pure: the result depends on the arguments alone, and equals that of
// docs/exactness.md ("Sampling") bit for bit.
//
// DATA_LOSS when a logit is infinite or NaN. `scratch` is overwritten.
// REQUIRES: logits not empty and below 2^23 many; params in their ranges.
absl::StatusOr<int32_t> SampleToken(absl::Span<const float> logits,
                                    const SamplerParams& params,
                                    int32_t position, SamplerScratch* scratch);

}  // namespace tern

#endif  // WORKER_SAMPLER_H_
