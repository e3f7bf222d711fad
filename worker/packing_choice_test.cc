#include "worker/packing_choice.h"

#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "gtest/gtest.h"
#include "kernels/isa.h"
#include "kernels/kernels.h"
#include "kernels/ternary_layout.h"
#include "worker/thread_pool.h"

namespace tern {
namespace {

TEST(PackingChoice, NamesAreTaken) {
  ThreadPool pool(1);
  for (const TernaryPacking packing : kAllTernaryPackings) {
    const auto chosen = ChoosePacking(TernaryPackingName(packing),
                                      KernelsFor(Isa::kRef), &pool);
    ASSERT_TRUE(chosen.ok()) << chosen.status();
    EXPECT_EQ(*chosen, packing);
  }
}

TEST(PackingChoice, WhatTheKernelsLackIsRefusedByName) {
  ThreadPool pool(1);
  Kernels kernels = KernelsFor(Isa::kRef);
  kernels.ternary_matmul_of[static_cast<int>(TernaryPacking::kBase3)] = nullptr;
  for (const absl::string_view name : {"base3", "3bit", ""}) {
    const absl::Status status = ChoosePacking(name, kernels, &pool).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
    EXPECT_NE(status.message().find(
                  "instruction set ref of this machine has auto, 2bit, tl2, "
                  "tl1"),
              absl::string_view::npos)
        << status;
  }
}

TEST(PackingChoice, AutoTakesAPackingThatThereIs) {
  ThreadPool pool(2);
  const Kernels& kernels = BestKernels();
  // The oracle would take minutes.
  if (kernels.isa == Isa::kRef) GTEST_SKIP() << "no fast kernels here";
  const auto speeds = MeasurePackings(kernels, &pool);
  ASSERT_TRUE(speeds.ok()) << speeds.status();
  int n_packings = 0;
  for (const TernaryPacking packing : kAllTernaryPackings) {
    n_packings += kernels.has_packing(packing);
  }
  EXPECT_EQ(speeds->size(), n_packings);
  for (const PackingSpeed& speed : *speeds) {
    EXPECT_TRUE(kernels.has_packing(speed.packing));
    EXPECT_GT(speed.weights_per_second, 1e6);
  }
  const auto chosen = ChoosePacking("auto", kernels, &pool);
  ASSERT_TRUE(chosen.ok()) << chosen.status();
  EXPECT_TRUE(kernels.has_packing(*chosen));
}

TEST(PackingChoice, TwoBitsGiveWayToWhatIsClearlyFaster) {
  EXPECT_EQ(FastestPacking({{TernaryPacking::k2Bit, 100},
                            {TernaryPacking::kBase3, 120},
                            {TernaryPacking::kTl2, 110}}),
            TernaryPacking::kBase3);
  EXPECT_EQ(FastestPacking(
                {{TernaryPacking::k2Bit, 100}, {TernaryPacking::kBase3, 102}}),
            TernaryPacking::k2Bit);
  EXPECT_EQ(FastestPacking(
                {{TernaryPacking::k2Bit, 100}, {TernaryPacking::kTl2, 60}}),
            TernaryPacking::k2Bit);
}

}  // namespace
}  // namespace tern
