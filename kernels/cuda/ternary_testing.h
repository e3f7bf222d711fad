#ifndef KERNELS_CUDA_TERNARY_TESTING_H_
#define KERNELS_CUDA_TERNARY_TESTING_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "kernels/cuda/simt.h"
#include "kernels/cuda/simt_emulator.h"
#include "kernels/cuda/ternary_matmul_args.h"
#include "kernels/cuda/ternary_plan.h"

namespace tern {

// A multiplication with all that a kernel reads, in host memory, and what
// ref::TernaryMatmul makes of it.
struct TernaryProblem {
  // Random codes and activations; with `extreme` all codes 2 and activations
  // 127 or -127, where sums are largest. Two segments of rows with different
  // scales, as those of a fused matrix.
  TernaryProblem(int n_tokens, int n_out, int n_in, uint32_t seed,
                 bool extreme = false);

  int n_tokens;
  int n_out;
  int n_in;
  std::vector<simt::Words4> tiles;
  std::vector<float> scale;     // [n_out]
  std::vector<simt::Words4> q;  // int8 [n_tokens, n_in]
  std::vector<float> s;         // [n_tokens]
  std::vector<int32_t> sum;     // [n_tokens]
  std::vector<float> expected;  // [n_tokens, n_out]

  // The arguments over these vectors; y and the meeting places are the
  // caller's.
  TernaryMatmulArgs Args(float* y, int32_t* partial_sums, int32_t* arrivals,
                         int column_splits) const;
};

// Runs a plan on an emulator that may touch what `args` points to.
absl::Status EmulateTernaryMatmul(const TernaryMatmulPlan& plan,
                                  const TernaryMatmulArgs& args,
                                  simt::Emulator* emulator);

// Runs a plan on an emulator of its own and writes y[n_tokens, n_out]. INTERNAL
// when the emulator found a mistake, the meeting places were not left zero, or
// rows that ldmatrix reads at once lie in the same banks.
absl::Status EmulateTernaryMatmul(const TernaryMatmulPlan& plan,
                                  const TernaryProblem& problem, uint32_t seed,
                                  std::vector<float>* y);

}  // namespace tern

#endif  // KERNELS_CUDA_TERNARY_TESTING_H_
