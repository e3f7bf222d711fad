// The kernels of BitLinear on the emulator: equal to docs/exactness.md bit for
// bit, whatever the shape, the split and the order of blocks.

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "kernels/cuda/ternary_plan.h"
#include "kernels/cuda/ternary_testing.h"
#include "kernels/cuda/ternary_tiles.h"
#include "kernels/kernels_testing.h"
#include "kernels/quantize.h"
#include "kernels/ref.h"
#include "kernels/ternary_layout.h"

namespace tern {
namespace {

constexpr DeviceLimits kH200 = {132, 227 * 1024, true};

void ExpectExact(const absl::StatusOr<TernaryMatmulPlan>& plan,
                 const TernaryProblem& problem, uint32_t seed) {
  ASSERT_TRUE(plan.ok()) << plan.status();
  SCOPED_TRACE(absl::StrCat(TernaryKernelName(plan->kernel), ", ",
                            problem.n_tokens, " tokens, ", problem.n_out, " x ",
                            problem.n_in, ", ", plan->column_splits,
                            " splits, seed ", seed));
  std::vector<float> y;
  const absl::Status status = EmulateTernaryMatmul(*plan, problem, seed, &y);
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_TRUE(testing::SameArrays(problem.expected, y));
}

// The problems themselves against the oracle of the CPU's kernels.
TEST(TernaryMatmul, ProblemsEqualTheReference) {
  const TernaryProblem problem(3, 37, 160, 5);
  std::vector<uint8_t> codes(kPanelRows * problem.n_in);
  testing::AlignedArray<uint8_t> packed(PackedBytes(problem.n_out, 160));
  for (int panel = 0; panel < 2; ++panel) {
    for (int row = 0; row < kPanelRows; ++row) {
      for (int k = 0; k < problem.n_in; ++k) {
        const int of_all = panel * kPanelRows + row;
        if (of_all >= problem.n_out) continue;
        // The code out of its tile.
        const auto* tiles =
            reinterpret_cast<const uint8_t*>(problem.tiles.data());
        const size_t tile =
            static_cast<size_t>(of_all / 16) * ColumnTiles(160) + k / 128;
        const int lane = of_all % 8 * 4 + k % 16 / 4;
        codes[row * problem.n_in + k] =
            tiles[tile * kTileBytes + lane * 16 + k % 128 / 32 * 4 + k % 4] >>
                (of_all % 16 / 8 * 2 + k % 32 / 16 * 4) &
            3;
      }
    }
    PackTernaryPanel(codes.data(), panel == 0 ? 32 : 5, problem.n_in,
                     packed.data() + panel * PanelBytes(problem.n_in));
  }
  const QuantizedTokens tokens = {
      reinterpret_cast<const int8_t*>(problem.q.data()), problem.s.data(),
      problem.sum.data(), problem.n_tokens, problem.n_in};
  std::vector<float> first(problem.expected.size());
  std::vector<float> second(problem.expected.size());
  ref::TernaryMatmul({packed.data(), 37, 160, problem.scale[0]}, tokens, 0, 37,
                     first.data(), 37);
  ref::TernaryMatmul({packed.data(), 37, 160, problem.scale[36]}, tokens, 0, 37,
                     second.data(), 37);
  for (size_t i = 0; i < first.size(); ++i) {
    const float expected = i % 37 < 12 ? first[i] : second[i];
    EXPECT_TRUE(testing::SameBits(expected, problem.expected[i]));
  }
}

TEST(TernaryMatmul, PlannedKernelsAreExact) {
  const DeviceLimits a100 = {108, 163 * 1024};
  for (int n_tokens : {1, 2, 3, 8, 13, 16, 27, 50, 64, 70, 130}) {
    const TernaryProblem problem(n_tokens, 50, 272, n_tokens);
    ExpectExact(PlanTernaryMatmul(kH200, n_tokens, 50, 272), problem, 1);
    if (n_tokens <= 64) continue;
    ExpectExact(PlanTernaryMatmul(a100, n_tokens, 50, 272), problem, 1);
  }
}

TEST(TernaryMatmul, EveryKernelAndSplitIsExact) {
  for (TernaryKernel kernel : kAllTernaryKernels) {
    const bool one_block = kernel <= TernaryKernel::kSkinny16;
    const int n_tokens = kernel == TernaryKernel::kGemv1   ? 1
                         : kernel == TernaryKernel::kGemv2 ? 2
                                                           : 5;
    for (int n_out : {1, 16, 67, 200}) {
      const TernaryProblem problem(n_tokens, n_out, 1040, n_out);
      for (int splits : one_block ? std::vector<int>{1, 2, 4, 8}
                                  : std::vector<int>{1, 2, 5, 9}) {
        ExpectExact(
            PlanTernaryMatmulWith(kH200, kernel, splits, n_tokens, n_out, 1040),
            problem, splits);
      }
    }
  }
}

TEST(TernaryMatmul, OrderOfBlocksDoesNotMatter) {
  const TernaryProblem problem(20, 100, 512, 8);
  for (uint32_t seed = 0; seed < 10; ++seed) {
    ExpectExact(
        PlanTernaryMatmulWith(kH200, TernaryKernel::kMma16, 4, 20, 100, 512),
        problem, seed);
  }
}

// Rows of the real models, few of them; the longest with the largest sums.
TEST(TernaryMatmul, RealRowsAreExact) {
  for (int n_in : {2560, 3840, 4096, 6912, 14336}) {
    for (int n_tokens : {1, 2, 7, 16, 40}) {
      const bool extreme = n_in == 14336;
      const TernaryProblem problem(n_tokens, 18, n_in, n_in, extreme);
      ExpectExact(PlanTernaryMatmul(kH200, n_tokens, 18, n_in), problem, 2);
    }
  }
  const TernaryProblem prompt(129, 130, 2560, 4);
  ExpectExact(PlanTernaryMatmul(kH200, 129, 130, 2560), prompt, 3);
}

// Longest rows that the contract allows: four times a sum still fits int32.
TEST(TernaryMatmul, LongestRowsAreExact) {
  const int n_in = 131056;
  for (int n_tokens : {1, 3}) {
    const TernaryProblem problem(n_tokens, 9, n_in, 6, /*extreme=*/true);
    ExpectExact(PlanTernaryMatmul(kH200, n_tokens, 9, n_in), problem, 4);
  }
}

}  // namespace
}  // namespace tern
