// BitLinear on the GPU of this machine: correct first, then how fast, held
// against what the device can do at most. Needs a driver and nothing else.

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <iostream>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "bench/gpu/device_peaks.h"
#include "bench/gpu/graph_timer.h"
#include "bench/gpu/linear_report.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/simt.h"
#include "kernels/cuda/ternary_device_problem.h"
#include "kernels/cuda/ternary_matmul.h"
#include "kernels/cuda/ternary_matmul_args.h"
#include "kernels/cuda/ternary_plan.h"
#include "kernels/cuda/ternary_testing.h"
#include "kernels/cuda/ternary_tiles.h"
#include "util/status_macros.h"

ABSL_FLAG(std::string, json, "", "File to write the report to as JSON.");
ABSL_FLAG(bool, sweep, true,
          "Also time the kernels and splits that the plan did not take.");

namespace tern {
namespace {

constexpr int kTokens[] = {1, 2, 4, 8, 16, 64, 256, 2048};
constexpr int kReplays = 7;
// Of the weights that a measurement goes through: several times any L2, so
// that they come from memory as those of a model's layers do.
constexpr double kWeightBytes = 300e6;

absl::Status CheckExact(const DeviceInfo& device) {
  for (const LinearShape& shape : kShapes2B4T) {
    for (int n_tokens : kTokens) {
      if (n_tokens > 256) continue;  // the reference is slow
      const TernaryProblem problem(n_tokens, 200, shape.n_in, n_tokens);
      ASSIGN_OR_RETURN(const TernaryMatmulPlan plan,
                       PlanTernaryMatmul(device.limits, n_tokens, problem.n_out,
                                         problem.n_in));
      ASSIGN_OR_RETURN(const TernaryDeviceProblem on_device,
                       TernaryDeviceProblem::Upload(problem));
      std::vector<float> y;
      RETURN_IF_ERROR(on_device.Run(plan, &y));
      if (y != problem.expected) {
        return absl::InternalError(absl::StrCat(
            TernaryKernelName(plan.kernel), " is wrong for ", n_tokens,
            " tokens, ", problem.n_out, " x ", problem.n_in));
      }
    }
  }
  return absl::OkStatus();
}

// A matrix, in several copies that are read in turn, and its tokens.
class Operands {
 public:
  static absl::StatusOr<Operands> Create(const LinearShape& shape,
                                         int n_tokens) {
    std::mt19937 rng(shape.n_out + n_tokens);
    std::vector<uint8_t> tiles(TernaryTilesBytes(shape.n_out, shape.n_in));
    for (uint8_t& byte : tiles) {
      for (int field = 0; field < 4; ++field) byte |= rng() % 3 << (2 * field);
    }
    const int copies = std::clamp(
        static_cast<int>(kWeightBytes / static_cast<double>(tiles.size())), 1,
        n_tokens >= 256 ? 16 : 200);
    ASSIGN_OR_RETURN(DeviceBuffer weights,
                     DeviceBuffer::Allocate(tiles.size() * copies));
    std::vector<uint8_t> all;
    for (int i = 0; i < copies; ++i) {
      all.insert(all.end(), tiles.begin(), tiles.end());
    }
    RETURN_IF_ERROR(weights.CopyFromHost(all.data(), all.size()));
    std::vector<int8_t> q(static_cast<size_t>(n_tokens) * shape.n_in);
    for (int8_t& v : q)
      v = static_cast<int8_t>(static_cast<int>(rng() % 255) - 127);
    const std::vector<float> ones(std::max(n_tokens, shape.n_out), 1.0f);
    ASSIGN_OR_RETURN(DeviceBuffer tokens, DeviceBuffer::Allocate(q.size()));
    RETURN_IF_ERROR(tokens.CopyFromHost(q.data(), q.size()));
    ASSIGN_OR_RETURN(DeviceBuffer scales,
                     DeviceBuffer::Allocate(ones.size() * sizeof(float)));
    RETURN_IF_ERROR(scales.CopyFromHost(ones.data(), scales.bytes()));
    const size_t outputs = static_cast<size_t>(n_tokens) * shape.n_out;
    ASSIGN_OR_RETURN(DeviceBuffer y,
                     DeviceBuffer::Allocate(outputs * sizeof(float)));
    ASSIGN_OR_RETURN(DeviceBuffer partial_sums,
                     DeviceBuffer::Allocate(outputs * sizeof(int32_t)));
    RETURN_IF_ERROR(partial_sums.Fill(0));
    ASSIGN_OR_RETURN(DeviceBuffer arrivals,
                     DeviceBuffer::Allocate(outputs * sizeof(int32_t)));
    RETURN_IF_ERROR(arrivals.Fill(0));
    return Operands(shape, n_tokens, copies, std::move(weights),
                    std::move(tokens), std::move(scales), std::move(y),
                    std::move(partial_sums), std::move(arrivals));
  }

  // Seconds of one multiplication, on weights that are not in L2.
  absl::StatusOr<double> Time(const TernaryMatmulPlan& plan,
                              bool overlapped = false) const {
    const auto enqueue = [&](CudaStream stream) {
      for (int i = 0; i < copies_; ++i) {
        const TernaryMatmulArgs args = Args(plan, i);
        RETURN_IF_ERROR(overlapped
                            ? LaunchTernaryMatmulOverlapped(plan, args, stream)
                            : LaunchTernaryMatmul(plan, args, stream));
      }
      return absl::OkStatus();
    };
    ASSIGN_OR_RETURN(const double seconds, TimeGraph(enqueue, kReplays));
    return seconds / copies_;
  }

 private:
  Operands(const LinearShape& shape, int n_tokens, int copies,
           DeviceBuffer weights, DeviceBuffer q, DeviceBuffer scales,
           DeviceBuffer y, DeviceBuffer partial_sums, DeviceBuffer arrivals)
      : shape_(shape),
        n_tokens_(n_tokens),
        copies_(copies),
        weights_(std::move(weights)),
        q_(std::move(q)),
        scales_(std::move(scales)),
        y_(std::move(y)),
        partial_sums_(std::move(partial_sums)),
        arrivals_(std::move(arrivals)) {}

  TernaryMatmulArgs Args(const TernaryMatmulPlan& plan, int copy) const {
    TernaryMatmulArgs args = {};
    args.tiles = weights_.as<simt::Words4>() +
                 TernaryTilesBytes(shape_.n_out, shape_.n_in) /
                     sizeof(simt::Words4) * copy;
    args.scale = scales_.as<float>();
    args.n_out = shape_.n_out;
    args.n_in = shape_.n_in;
    args.q = q_.as<int8_t>();
    args.s = scales_.as<float>();
    args.sum = scales_.as<int32_t>();  // any numbers
    args.n_tokens = n_tokens_;
    args.y = y_.as<float>();
    args.y_stride = shape_.n_out;
    args.column_splits = plan.column_splits;
    args.partial_sums = partial_sums_.as<int32_t>();
    args.arrivals = arrivals_.as<int32_t>();
    return args;
  }

  LinearShape shape_;
  int n_tokens_;
  int copies_;
  DeviceBuffer weights_;
  DeviceBuffer q_;
  DeviceBuffer scales_;
  DeviceBuffer y_;
  DeviceBuffer partial_sums_;
  DeviceBuffer arrivals_;
};

absl::StatusOr<LinearRow> Measure(const DeviceInfo& device,
                                  const LinearShape& shape, int n_tokens,
                                  bool sweep) {
  ASSIGN_OR_RETURN(const Operands operands, Operands::Create(shape, n_tokens));
  ASSIGN_OR_RETURN(
      const TernaryMatmulPlan plan,
      PlanTernaryMatmul(device.limits, n_tokens, shape.n_out, shape.n_in));
  LinearRow row = {};
  row.shape = shape;
  row.n_tokens = n_tokens;
  row.kernel = row.best_kernel = plan.kernel;
  row.column_splits = row.best_column_splits = plan.column_splits;
  ASSIGN_OR_RETURN(row.seconds, operands.Time(plan));
  ASSIGN_OR_RETURN(row.overlapped_seconds,
                   operands.Time(plan, /*overlapped=*/true));
  row.best_seconds = row.seconds;
  if (!sweep) return row;
  for (TernaryKernel kernel : kAllTernaryKernels) {
    for (int splits : {1, 2, 3, 4, 5, 6, 8, 10, 16}) {
      const absl::StatusOr<TernaryMatmulPlan> other = PlanTernaryMatmulWith(
          device.limits, kernel, splits, n_tokens, shape.n_out, shape.n_in);
      // Not what reads all weights many times over.
      if (!other.ok() ||
          (other->shape.grid_y > 4 && kernel < TernaryKernel::kMma64)) {
        continue;
      }
      ASSIGN_OR_RETURN(const double other_seconds, operands.Time(*other));
      if (other_seconds < row.best_seconds) {
        row.best_kernel = kernel;
        row.best_column_splits = splits;
        row.best_seconds = other_seconds;
      }
    }
  }
  return row;
}

absl::Status Run() {
  if (CudaDeviceCount() == 0) {
    return absl::FailedPreconditionError("this machine has no CUDA device");
  }
  ASSIGN_OR_RETURN(const DeviceInfo device, GetDeviceInfo(0));
  RETURN_IF_ERROR(PrepareTernaryMatmul());
  RETURN_IF_ERROR(CheckExact(device));
  std::cout << "Every planned kernel is exact.\n\n";
  ASSIGN_OR_RETURN(const DevicePeaks peaks, MeasureDevicePeaks(device));
  std::vector<LinearRow> rows;
  for (int n_tokens : kTokens) {
    for (const LinearShape& shape : kShapes2B4T) {
      ASSIGN_OR_RETURN(
          const LinearRow row,
          Measure(device, shape, n_tokens, absl::GetFlag(FLAGS_sweep)));
      rows.push_back(row);
    }
  }
  std::cout << LinearMarkdown(device, peaks, rows);
  const std::string json = absl::GetFlag(FLAGS_json);
  if (!json.empty()) {
    std::ofstream file(json);
    file << LinearJson(device, peaks, rows) << "\n";
    if (!file.flush()) {
      return absl::InternalError(absl::StrCat("cannot write ", json));
    }
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace tern

int main(int argc, char** argv) {
  absl::ParseCommandLine(argc, argv);
  const absl::Status status = tern::Run();
  if (!status.ok()) {
    std::cerr << status.message() << "\n";
    return 1;
  }
  return 0;
}
