#include "kernels/cuda/ternary_device_problem.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/simt.h"
#include "kernels/cuda/ternary_matmul.h"
#include "util/status_macros.h"

namespace tern {
namespace {

template <typename T>
absl::StatusOr<DeviceBuffer> UploadVector(const std::vector<T>& host) {
  ASSIGN_OR_RETURN(DeviceBuffer buffer,
                   DeviceBuffer::Allocate(host.size() * sizeof(T)));
  RETURN_IF_ERROR(buffer.CopyFromHost(host.data(), buffer.bytes()));
  return buffer;
}

absl::StatusOr<DeviceBuffer> Filled(size_t bytes, uint8_t byte) {
  ASSIGN_OR_RETURN(DeviceBuffer buffer, DeviceBuffer::Allocate(bytes));
  RETURN_IF_ERROR(buffer.Fill(byte));
  return buffer;
}

absl::Status CheckZero(const DeviceBuffer& buffer) {
  std::vector<uint8_t> bytes(buffer.bytes());
  RETURN_IF_ERROR(buffer.CopyToHost(bytes.data(), bytes.size()));
  for (uint8_t byte : bytes) {
    if (byte != 0) {
      return absl::InternalError("the meeting places are not left zero");
    }
  }
  return absl::OkStatus();
}

}  // namespace

TernaryDeviceProblem::TernaryDeviceProblem(const TernaryProblem* problem,
                                           DeviceBuffer tiles,
                                           DeviceBuffer scale, DeviceBuffer q,
                                           DeviceBuffer s, DeviceBuffer sum)
    : problem_(problem),
      tiles_(std::move(tiles)),
      scale_(std::move(scale)),
      q_(std::move(q)),
      s_(std::move(s)),
      sum_(std::move(sum)) {}

absl::StatusOr<TernaryDeviceProblem> TernaryDeviceProblem::Upload(
    const TernaryProblem& problem) {
  ASSIGN_OR_RETURN(DeviceBuffer tiles, UploadVector(problem.tiles));
  ASSIGN_OR_RETURN(DeviceBuffer scale, UploadVector(problem.scale));
  ASSIGN_OR_RETURN(DeviceBuffer q, UploadVector(problem.q));
  ASSIGN_OR_RETURN(DeviceBuffer s, UploadVector(problem.s));
  ASSIGN_OR_RETURN(DeviceBuffer sum, UploadVector(problem.sum));
  return TernaryDeviceProblem(&problem, std::move(tiles), std::move(scale),
                              std::move(q), std::move(s), std::move(sum));
}

absl::Status TernaryDeviceProblem::Run(const TernaryMatmulPlan& plan,
                                       std::vector<float>* y) const {
  const size_t n = problem_->expected.size();
  // NaN where nothing is written.
  ASSIGN_OR_RETURN(DeviceBuffer out, Filled(n * sizeof(float), 0xff));
  ASSIGN_OR_RETURN(DeviceBuffer partial_sums,
                   Filled(plan.partial_sums * sizeof(int32_t), 0));
  ASSIGN_OR_RETURN(DeviceBuffer arrivals,
                   Filled(plan.arrivals * sizeof(int32_t), 0));
  TernaryMatmulArgs args =
      problem_->Args(out.as<float>(), partial_sums.as<int32_t>(),
                     arrivals.as<int32_t>(), plan.column_splits);
  args.tiles = tiles_.as<simt::Words4>();
  args.scale = scale_.as<float>();
  args.q = q_.as<int8_t>();
  args.s = s_.as<float>();
  args.sum = sum_.as<int32_t>();
  RETURN_IF_ERROR(LaunchTernaryMatmul(plan, args, nullptr));
  RETURN_IF_ERROR(SynchronizeDevice());
  y->resize(n);
  RETURN_IF_ERROR(out.CopyToHost(y->data(), n * sizeof(float)));
  RETURN_IF_ERROR(out.Fill(0xff));
  for (int i = 0; i < 3; ++i) {
    RETURN_IF_ERROR(LaunchTernaryMatmulOverlapped(plan, args, nullptr));
  }
  RETURN_IF_ERROR(SynchronizeDevice());
  std::vector<float> again(n);
  RETURN_IF_ERROR(out.CopyToHost(again.data(), n * sizeof(float)));
  if (std::memcmp(again.data(), y->data(), n * sizeof(float)) != 0) {
    return absl::InternalError("overlapped kernels give other outputs");
  }
  RETURN_IF_ERROR(CheckZero(partial_sums));
  return CheckZero(arrivals);
}

}  // namespace tern
