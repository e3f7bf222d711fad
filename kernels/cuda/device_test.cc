// What the emulator says of the kernels, said again by a device.

#include "kernels/cuda/device.h"

#include <cstdint>
#include <cstring>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "kernels/cuda/simt_probe.h"
#include "kernels/cuda/simt_probe_device.h"
#include "kernels/cuda/simt_probe_kernel.h"
#include "kernels/cuda/ternary_device_problem.h"
#include "kernels/cuda/ternary_matmul.h"
#include "kernels/cuda/ternary_plan.h"
#include "kernels/cuda/ternary_testing.h"
#include "kernels/kernels_testing.h"

namespace tern {
namespace {

// Tests skip where there is no device.
class Device : public ::testing::Test {
 protected:
  void SetUp() override {
    if (CudaDeviceCount() == 0) GTEST_SKIP() << "no CUDA device";
    const absl::StatusOr<DeviceInfo> info = GetDeviceInfo(0);
    ASSERT_TRUE(info.ok()) << info.status();
    limits_ = info->limits;
    const absl::Status prepared = PrepareTernaryMatmul();
    ASSERT_TRUE(prepared.ok()) << prepared;
  }

  void ExpectExact(const absl::StatusOr<TernaryMatmulPlan>& plan,
                   const TernaryProblem& problem) {
    ASSERT_TRUE(plan.ok()) << plan.status();
    SCOPED_TRACE(absl::StrCat(TernaryKernelName(plan->kernel), ", ",
                              problem.n_tokens, " tokens, ", problem.n_out,
                              " x ", problem.n_in, ", ", plan->column_splits,
                              " splits"));
    const auto device = TernaryDeviceProblem::Upload(problem);
    ASSERT_TRUE(device.ok()) << device.status();
    std::vector<float> y;
    const absl::Status status = device->Run(*plan, &y);
    ASSERT_TRUE(status.ok()) << status;
    EXPECT_TRUE(testing::SameArrays(problem.expected, y));
  }

  DeviceLimits limits_ = {};
};

// Every function of simt.h, so that a difference between device and emulator
// has a name.
TEST_F(Device, EveryInstructionIsTheEmulators) {
  const std::vector<simt::ProbeInput> in =
      simt::RandomProbeInputs(10 * simt::ProbeKernel::kThreads, 11);
  int32_t expected_total = 0;
  int32_t total = 0;
  const std::vector<simt::ProbeResult> expected =
      simt::RunProbe(in, &expected_total);
  const auto actual = simt::RunProbeOnDevice(in, &total);
  ASSERT_TRUE(actual.ok()) << actual.status();
  ASSERT_EQ(actual->size(), expected.size());
  EXPECT_EQ(total, expected_total);
  const auto same = [](const auto& a, const auto& b) {
    return std::memcmp(&a, &b, sizeof(a)) == 0;
  };
  for (size_t i = 0; i < expected.size(); ++i) {
    const simt::ProbeResult& e = expected[i];
    const simt::ProbeResult& a = (*actual)[i];
    SCOPED_TRACE(absl::StrCat("thread ", i));
    EXPECT_TRUE(same(e.place, a.place));
    EXPECT_TRUE(same(e.shuffle, a.shuffle));
    EXPECT_EQ(e.shuffle64, a.shuffle64);
    EXPECT_EQ(e.ballot, a.ballot);
    EXPECT_TRUE(same(e.dp4a, a.dp4a));
    EXPECT_TRUE(same(e.mma_u8s8, a.mma_u8s8));
    EXPECT_TRUE(same(e.mma_s8s8, a.mma_s8s8));
    EXPECT_TRUE(same(e.mma_f16, a.mma_f16));
    EXPECT_TRUE(same(e.load_matrix, a.load_matrix));
    EXPECT_TRUE(same(e.load_matrix_transposed, a.load_matrix_transposed));
    EXPECT_TRUE(same(e.copied, a.copied));
    EXPECT_TRUE(same(e.streamed, a.streamed));
    EXPECT_EQ(e.coherent, a.coherent);
    for (int j = 0; j < 8; ++j) {
      EXPECT_EQ(e.numbers[j], a.numbers[j]) << "number " << j;
    }
    EXPECT_EQ(e.high, a.high);
    if (HasFailure()) break;  // the others say the same
  }
}

TEST_F(Device, EveryTernaryKernelAndSplitIsExact) {
  for (TernaryKernel kernel : kAllTernaryKernels) {
    if (kernel == TernaryKernel::kWgmma128 && !limits_.wgmma) continue;
    const bool one_block = kernel <= TernaryKernel::kSkinny16;
    const int n_tokens = kernel == TernaryKernel::kGemv1      ? 1
                         : kernel == TernaryKernel::kGemv2    ? 2
                         : kernel == TernaryKernel::kSkinny8  ? 7
                         : kernel == TernaryKernel::kSkinny16 ? 15
                                                              : 37;
    for (int n_out : {1, 67, 200}) {
      const TernaryProblem problem(n_tokens, n_out, 1040, n_out);
      for (int splits : one_block ? std::vector<int>{1, 2, 4, 8}
                                  : std::vector<int>{1, 2, 5, 9}) {
        ExpectExact(PlanTernaryMatmulWith(limits_, kernel, splits, n_tokens,
                                          n_out, 1040),
                    problem);
      }
    }
  }
}

TEST_F(Device, PlannedTernaryKernelsAreExact) {
  const int shapes[][2] = {
      {640, 2560}, {200, 6912}, {130, 14336}, {1030, 4096}};
  for (const auto& shape : shapes) {
    for (int n_tokens : {1, 2, 3, 8, 16, 33, 64, 65, 130}) {
      for (bool extreme : {false, true}) {
        const TernaryProblem problem(n_tokens, shape[0], shape[1], n_tokens,
                                     extreme);
        ExpectExact(PlanTernaryMatmul(limits_, n_tokens, shape[0], shape[1]),
                    problem);
      }
    }
  }
}

}  // namespace
}  // namespace tern
