#ifndef KERNELS_CUDA_TERNARY_DEVICE_PROBLEM_H_
#define KERNELS_CUDA_TERNARY_DEVICE_PROBLEM_H_

#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/ternary_matmul_args.h"
#include "kernels/cuda/ternary_plan.h"
#include "kernels/cuda/ternary_testing.h"

namespace tern {

// A TernaryProblem in the memory of the current device.
class TernaryDeviceProblem {
 public:
  static absl::StatusOr<TernaryDeviceProblem> Upload(
      const TernaryProblem& problem);

  // Runs a plan and writes y[n_tokens, n_out] to host memory; then again,
  // overlapped with itself. INTERNAL also when the meeting places are not left
  // zero or the two differ.
  absl::Status Run(const TernaryMatmulPlan& plan, std::vector<float>* y) const;

 private:
  TernaryDeviceProblem(const TernaryProblem* problem, DeviceBuffer tiles,
                       DeviceBuffer scale, DeviceBuffer q, DeviceBuffer s,
                       DeviceBuffer sum);

  const TernaryProblem* problem_;  // outlives this
  DeviceBuffer tiles_;
  DeviceBuffer scale_;
  DeviceBuffer q_;
  DeviceBuffer s_;
  DeviceBuffer sum_;
};

}  // namespace tern

#endif  // KERNELS_CUDA_TERNARY_DEVICE_PROBLEM_H_
