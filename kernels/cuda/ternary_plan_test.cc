#include "kernels/cuda/ternary_plan.h"

#include <set>

#include "absl/status/status.h"
#include "gtest/gtest.h"
#include "kernels/cuda/ternary_gemv_kernel.h"
#include "kernels/cuda/ternary_mma_kernel.h"
#include "kernels/cuda/ternary_tiles.h"
#include "kernels/cuda/ternary_wgmma_kernel.h"

namespace tern {
namespace {

constexpr DeviceLimits kDevices[] = {
    {132, 227 * 1024, true},  // H100, H200
    {108, 163 * 1024},        // A100
    {82, 99 * 1024},          // 3090
    {128, 99 * 1024},         // 4090
    {14, 99 * 1024},
};

int MmaRows(TernaryKernel kernel) {
  switch (kernel) {
    case TernaryKernel::kMma8:
      return TernaryMma8::Block::kRows;
    case TernaryKernel::kMma16:
      return TernaryMma16::Block::kRows;
    case TernaryKernel::kMma32:
      return TernaryMma32::Block::kRows;
    case TernaryKernel::kMma64:
      return TernaryMma64::Block::kRows;
    case TernaryKernel::kWgmma128:
      return TernaryWgmma128::Block::kRows;
    default:
      return TernaryMma128::Block::kRows;
  }
}

TEST(TernaryPlan, FitsEveryDevice) {
  for (const DeviceLimits& device : kDevices) {
    for (int n_in : {16, 2560, 6912, 14336, 131056}) {
      for (int n_out : {1, 640, 2560, 13824, 28672}) {
        for (int n_tokens : {1, 2, 3, 8, 9, 17, 33, 64, 65, 256, 8192}) {
          const auto plan = PlanTernaryMatmul(device, n_tokens, n_out, n_in);
          ASSERT_TRUE(plan.ok()) << plan.status();
          EXPECT_LE(plan->shape.shared_bytes, device.shared_bytes);
          EXPECT_LE(plan->shape.grid_y, 65535);
          EXPECT_LE(plan->shape.grid_z, 65535);
          EXPECT_LE(plan->shape.threads, 256);
          EXPECT_GE(plan->column_splits, 1);
          // No part of the columns is empty.
          EXPECT_TRUE(plan->column_splits <= ColumnTiles(n_in) ||
                      plan->kernel <= TernaryKernel::kSkinny16);
        }
      }
    }
  }
}

TEST(TernaryPlan, GivesEveryOutputToOneBlockOfEachSplit) {
  for (int n_out : {1, 16, 17, 2560, 2570}) {
    for (int n_tokens : {17, 32, 33, 100, 129, 2048}) {
      const auto plan =
          PlanTernaryMatmul(kDevices[0], n_tokens, n_out, 2560).value();
      const int rows = MmaRows(plan.kernel);
      EXPECT_GE(plan.shape.grid_x * rows, n_out);
      EXPECT_LT((plan.shape.grid_x - 1) * rows, n_out);
      EXPECT_EQ(plan.shape.grid_z, plan.column_splits);
      EXPECT_EQ(plan.partial_sums, plan.column_splits == 1
                                       ? 0u
                                       : static_cast<size_t>(n_tokens) * n_out);
    }
  }
}

TEST(TernaryPlan, FillsTheDevice) {
  // 2B-4T on an H200: q, k and v; o; gate and up; down.
  const int shapes[][2] = {
      {3840, 2560}, {2560, 2560}, {13824, 2560}, {2560, 6912}};
  for (const auto& shape : shapes) {
    for (int n_tokens : {1, 2, 4, 8, 16, 32, 64, 256, 2048}) {
      const auto plan =
          PlanTernaryMatmul(kDevices[0], n_tokens, shape[0], shape[1]).value();
      const int blocks =
          plan.shape.grid_x * plan.shape.grid_y * plan.shape.grid_z;
      EXPECT_GE(blocks, 100)
          << TernaryKernelName(plan.kernel) << " " << n_tokens << " tokens, "
          << shape[0] << " x " << shape[1];
    }
  }
}

TEST(TernaryPlan, TakesTheKernelOfTheTokens) {
  auto kernel = [](int n_tokens) {
    return PlanTernaryMatmul(kDevices[0], n_tokens, 2560, 2560).value().kernel;
  };
  EXPECT_EQ(kernel(1), TernaryKernel::kGemv1);
  EXPECT_EQ(kernel(2), TernaryKernel::kGemv2);
  EXPECT_EQ(kernel(3), TernaryKernel::kSkinny8);
  EXPECT_EQ(kernel(8), TernaryKernel::kSkinny8);
  EXPECT_EQ(kernel(9), TernaryKernel::kSkinny16);
  EXPECT_EQ(kernel(17), TernaryKernel::kMma32);
  EXPECT_EQ(kernel(32), TernaryKernel::kMma32);
  EXPECT_EQ(kernel(64), TernaryKernel::kMma64);
  EXPECT_EQ(kernel(65), TernaryKernel::kWgmma128);
  EXPECT_EQ(PlanTernaryMatmul(kDevices[1], 65, 64, 256).value().kernel,
            TernaryKernel::kMma128);
  // Rows that do not fit shared memory.
  EXPECT_EQ(PlanTernaryMatmul(kDevices[2], 16, 64, 6912).value().kernel,
            TernaryKernel::kMma16);
  EXPECT_EQ(PlanTernaryMatmul(kDevices[2], 1, 64, 131056).value().kernel,
            TernaryKernel::kMma8);
}

TEST(TernaryPlan, RefusesWhatCannotBe) {
  const DeviceLimits device = kDevices[0];
  auto refused = [](const absl::StatusOr<TernaryMatmulPlan>& plan) {
    return plan.status().code() == absl::StatusCode::kInvalidArgument;
  };
  EXPECT_TRUE(refused(PlanTernaryMatmul(device, 0, 16, 16)));
  EXPECT_TRUE(refused(PlanTernaryMatmul(device, 1, 0, 16)));
  EXPECT_TRUE(refused(PlanTernaryMatmul(device, 1, 16, 24)));
  EXPECT_TRUE(refused(PlanTernaryMatmul(device, 1, 16, 1 << 17)));
  EXPECT_TRUE(refused(PlanTernaryMatmul(device, 2147483647, 16, 16)));
  EXPECT_TRUE(refused(
      PlanTernaryMatmulWith(device, TernaryKernel::kGemv1, 1, 2, 16, 16)));
  EXPECT_TRUE(refused(
      PlanTernaryMatmulWith(device, TernaryKernel::kGemv1, 3, 1, 16, 16)));
  EXPECT_TRUE(refused(
      PlanTernaryMatmulWith(device, TernaryKernel::kMma8, 2, 4, 16, 128)));
  EXPECT_TRUE(refused(PlanTernaryMatmulWith(
      kDevices[1], TernaryKernel::kWgmma128, 1, 128, 128, 128)));
  EXPECT_TRUE(refused(PlanTernaryMatmulWith(
      {14, 48 * 1024}, TernaryKernel::kMma128, 1, 128, 128, 128)));
}

}  // namespace
}  // namespace tern
