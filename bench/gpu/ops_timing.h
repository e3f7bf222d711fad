#ifndef BENCH_GPU_OPS_TIMING_H_
#define BENCH_GPU_OPS_TIMING_H_

#include <string>

#include "absl/status/statusor.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/normalise_args.h"

namespace tern {

// What one call of an operation took, in the shapes of 2B-4T, and the least it
// has to move and to add.
struct OpTime {
  std::string what;
  double seconds;
  double bytes;
  double fmas;  // in float32; 0 where they do not matter
};

// Attention of one layer: `batch` sequences that decode one token each after
// `context` positions. Layers take turns, so that keys and values come from
// memory.
absl::StatusOr<OpTime> TimeDecodeAttention(const DeviceInfo& device, int batch,
                                           int context);

// Attention of one layer over whole prompts of so many tokens, `tokens`
// altogether.
absl::StatusOr<OpTime> TimePromptAttention(const DeviceInfo& device,
                                           int prompt_tokens, int tokens);

// Norm and quantiser of n columns.
absl::StatusOr<OpTime> TimeNormalise(int tokens, int n,
                                     cuda::NormaliseInput input);

absl::StatusOr<OpTime> TimeRope(int tokens);
absl::StatusOr<OpTime> TimeHead(int tokens);

// top_k 0 and top_p 1 keep all; temperature 0 is greedy.
absl::StatusOr<OpTime> TimeSample(int rows, float temperature, int top_k,
                                  float top_p);

}  // namespace tern

#endif  // BENCH_GPU_OPS_TIMING_H_
