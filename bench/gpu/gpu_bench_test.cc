// What of the GPU's benchmark needs none: its report, and on the emulator the
// kernels that find the peaks.

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "bench/gpu/device_peaks.h"
#include "bench/gpu/linear_report.h"
#include "bench/gpu/peak_kernels.h"
#include "gtest/gtest.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/launch_shape.h"
#include "kernels/cuda/simt_emulator.h"
#include "kernels/cuda/ternary_plan.h"
#include "nlohmann/json.hpp"

namespace tern {
namespace {

const DeviceInfo kDevice = {"Card",           9,        0,
                            int64_t{1} << 37, 50 << 20, {132, 232448}};
const DevicePeaks kPeaks = {4e12, 4e12, 1e15, 2e15};

std::vector<LinearRow> Rows() {
  std::vector<LinearRow> rows;
  for (const LinearShape& shape : kShapes2B4T) {
    rows.push_back({shape, 1, TernaryKernel::kGemv1, 8, 2e-6, 1e-6,
                    TernaryKernel::kMma8, 2, 5e-7});
  }
  rows.push_back({kShapes2B4T[0], 64, TernaryKernel::kMma64, 1, 2e-6, 2e-6,
                  TernaryKernel::kMma64, 1, 2e-6});
  return rows;
}

TEST(LinearReport, CountsBytesAndOperations) {
  // 2560 x 2560 at 2 bits, a token of 2560 bytes, 2560 floats.
  EXPECT_EQ(LinearBytes(kShapes2B4T[1], 1), 2560 * 640 + 2560 + 4 * 2560);
  EXPECT_EQ(LinearOps(kShapes2B4T[1], 3), 2.0 * 2560 * 2560 * 3);
}

TEST(LinearReport, TotalsNeedEveryShape) {
  const std::vector<LinearTotal> totals = TotalsOf(Rows());
  ASSERT_EQ(totals.size(), 1u);
  EXPECT_EQ(totals[0].n_tokens, 1);
  EXPECT_DOUBLE_EQ(totals[0].seconds, 30 * 4e-6);
  EXPECT_DOUBLE_EQ(totals[0].tokens_per_second, 1 / 120e-6);
}

TEST(LinearReport, SaysTheSameInTextAndJson) {
  const std::string text = LinearMarkdown(kDevice, kPeaks, Rows());
  // 1,651,200 bytes in two microseconds, of 4 TB/s.
  EXPECT_NE(text.find("| o | 1 | gemv1 | 8 | 2.00 | 1.00 | 826 | 21 % |"),
            std::string::npos)
      << text;
  EXPECT_NE(text.find("| 1 | 0.120 | 8333 |"), std::string::npos) << text;
  const auto json = nlohmann::json::parse(LinearJson(kDevice, kPeaks, Rows()));
  EXPECT_EQ(json["rows"].size(), 5u);
  EXPECT_EQ(json["rows"][1]["bytes"], 1651200);
  EXPECT_EQ(json["rows"][0]["best_kernel"], "mma8");
  EXPECT_EQ(json["totals"].size(), 1u);
}

TEST(PeakKernels, ReadTheirMemoryAlone) {
  constexpr int kRuns = 3;
  std::vector<simt::Words4> words(kRuns * ReadPeakKernel::kThreads *
                                  ReadPeakKernel::kAhead);
  uint32_t sink = 0;
  simt::Emulator emulator;
  emulator.AllowRead(words.data(), words.size());
  emulator.AllowWrite(&sink, 1);
  simt::LaunchShape shape;
  shape.grid_x = 2;
  shape.threads = ReadPeakKernel::kThreads;
  const ReadPeakKernel::Args args = {words.data(),
                                     static_cast<int64_t>(words.size()), &sink};
  EXPECT_TRUE(emulator.Run<ReadPeakKernel>(shape, args).ok());
  EXPECT_EQ(sink, 1u);  // all words were zero
}

TEST(PeakKernels, Multiply) {
  std::vector<uint32_t> operands(6 * 32, 0x01010101);
  std::vector<int32_t> sums(MmaPeakKernel::kThreads, -1);
  simt::Emulator emulator;
  emulator.AllowRead(operands.data(), operands.size());
  emulator.AllowWrite(sums.data(), sums.size());
  simt::LaunchShape shape;
  shape.threads = MmaPeakKernel::kThreads;
  EXPECT_TRUE(
      emulator.Run<MmaPeakKernel>(shape, {operands.data(), sums.data(), 2})
          .ok());
  // Every sum is 2 * 32, and there is an even number of them.
  EXPECT_EQ(sums, std::vector<int32_t>(MmaPeakKernel::kThreads, 0));
}

TEST(PeakKernels, MultiplyByWarpgroups) {
  const std::vector<uint32_t> operands(WgmmaPeakKernel::kSharedBytes / 4,
                                       0x01010101);
  std::vector<int32_t> sums(WgmmaPeakKernel::kThreads, -1);
  simt::Emulator emulator;
  emulator.AllowRead(operands.data(), operands.size());
  emulator.AllowWrite(sums.data(), sums.size());
  simt::LaunchShape shape;
  shape.threads = WgmmaPeakKernel::kThreads;
  shape.shared_bytes = WgmmaPeakKernel::kSharedBytes;
  const absl::Status status =
      emulator.Run<WgmmaPeakKernel>(shape, {operands.data(), sums.data(), 3});
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(sums, std::vector<int32_t>(WgmmaPeakKernel::kThreads, 0));
}

}  // namespace
}  // namespace tern
