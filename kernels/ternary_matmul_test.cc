#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/kernels.h"
#include "kernels/kernels_testing.h"
#include "kernels/quantize.h"
#include "kernels/ternary_layout.h"

namespace tern {
namespace {

using testing::AlignedArray;

// Weights and activations at their extremes: 0 with anything, +1 with 127, -1
// with -127, -1 with 127.
enum class Fill { kRandom, kAllZero, kSaturated, kNegated, kOpposed };

// A packed matrix and quantised tokens.
struct Problem {
  Problem(int n_out, int n_in, int n_tokens, Fill fill, TernaryPacking packing,
          unsigned seed)
      : packed(PackedBytes(n_out, n_in, packing)),
        q(static_cast<size_t>(n_tokens) * n_in),
        s(n_tokens),
        sum(n_tokens) {
    std::mt19937 rng(seed);
    std::vector<uint8_t> codes(static_cast<size_t>(kPanelRows) * n_in);
    for (int p = 0; p < PanelCount(n_out); ++p) {
      for (uint8_t& code : codes) {
        code = fill == Fill::kRandom      ? rng() % 3
               : fill == Fill::kAllZero   ? 1
               : fill == Fill::kSaturated ? 2
                                          : 0;
      }
      PackTernaryPanel(codes.data(),
                       std::min(kPanelRows, n_out - p * kPanelRows), n_in,
                       packed.data() + p * PanelBytes(n_in, packing), packing);
    }
    for (int t = 0; t < n_tokens; ++t) {
      for (int k = 0; k < n_in; ++k) {
        int8_t& value = q[static_cast<size_t>(t) * n_in + k];
        value = static_cast<int8_t>(static_cast<int>(rng() % 255) - 127);
        if (fill == Fill::kSaturated || fill == Fill::kOpposed) value = 127;
        if (fill == Fill::kNegated) value = -127;
        sum[t] += value;
      }
      s[t] = 0.5f + t;
    }
    weights = {packed.data(), n_out, n_in, 0.37f, packing};
    tokens = {q.data(), s.data(), sum.data(), n_tokens, n_in};
  }

  AlignedArray<uint8_t> packed;
  AlignedArray<int8_t> q;
  std::vector<float> s;
  std::vector<int32_t> sum;
  TernaryView weights;
  QuantizedTokens tokens;
};

// Columns between the end of a token's outputs and the next token's.
constexpr int kGap = 3;
constexpr float kUntouched = -12345.0f;

std::vector<float> Matmul(const Kernels& kernels, const Problem& p,
                          int row_begin, int row_end) {
  const size_t stride = p.weights.n_out + kGap;
  std::vector<float> y(p.tokens.n_tokens * stride, kUntouched);
  kernels.ternary_matmul(p.weights, p.tokens, row_begin, row_end, y.data(),
                         stride);
  return y;
}

// An instruction set and a packing that it has a kernel for.
struct Variant {
  Isa isa;
  TernaryPacking packing;
};

std::vector<Variant> Variants() {
  std::vector<Variant> variants;
  for (Isa isa : SupportedIsas()) {
    for (TernaryPacking packing : kAllTernaryPackings) {
      if (KernelsFor(isa).has_packing(packing)) {
        variants.push_back({isa, packing});
      }
    }
  }
  return variants;
}

std::string VariantName(const ::testing::TestParamInfo<Variant>& info) {
  return std::string(IsaName(info.param.isa)) + "_" +
         std::string(TernaryPackingName(info.param.packing));
}

class TernaryMatmul : public ::testing::TestWithParam<Variant> {
 protected:
  const Kernels& kernels() const { return KernelsFor(GetParam().isa); }
  TernaryPacking packing() const { return GetParam().packing; }

  // The oracle reads the same weights in 2 bits, so that a mistake in a packing
  // is seen as well.
  void ExpectEqual(int n_out, int n_in, int n_tokens, Fill fill,
                   int row_begin = 0, int row_end = -1) {
    if (row_end < 0) row_end = n_out;
    const unsigned seed = n_out * 7919 + n_in * 31 + n_tokens;
    const Problem expected(n_out, n_in, n_tokens, fill, TernaryPacking::k2Bit,
                           seed);
    const Problem p(n_out, n_in, n_tokens, fill, packing(), seed);
    // Outside the range and between tokens both must leave kUntouched.
    ASSERT_TRUE(testing::SameArrays(
        Matmul(KernelsFor(Isa::kRef), expected, row_begin, row_end),
        Matmul(kernels(), p, row_begin, row_end)))
        << "n_out " << n_out << " n_in " << n_in << " tokens " << n_tokens
        << " rows [" << row_begin << ", " << row_end << ") fill "
        << static_cast<int>(fill) << " seed " << seed;
  }
};
INSTANTIATE_TEST_SUITE_P(Variants, TernaryMatmul,
                         ::testing::ValuesIn(Variants()), VariantName);

TEST(TernaryPackings, TheOracleHasThemAll) {
  for (TernaryPacking packing : kAllTernaryPackings) {
    EXPECT_TRUE(KernelsFor(Isa::kRef).has_packing(packing));
  }
}

constexpr int kTokenCounts[] = {1, 2, 3, 4, 5, 7, 8, 11, 12, 13, 24, 33};

TEST_P(TernaryMatmul, EqualsTheOracleForOddShapes) {
  for (int n_tokens : kTokenCounts) {
    for (int n_out : {1, 16, 17, 32, 33, 75}) {
      for (int n_in : {16, 32, 128, 144, 272}) {
        ExpectEqual(n_out, n_in, n_tokens, Fill::kRandom);
      }
    }
  }
}

TEST_P(TernaryMatmul, EqualsTheOracleForModelWidths) {
  for (int n_in : {2560, 4096, 6912}) {
    for (int n_tokens : {1, 2, 3, 13}) {
      ExpectEqual(40, n_in, n_tokens, Fill::kRandom);
    }
  }
}

TEST_P(TernaryMatmul, ManyTokensGoThroughSeveralBlocks) {
  for (int n_tokens : {95, 96, 97, 193}) {
    ExpectEqual(33, 64, n_tokens, Fill::kRandom);
  }
}

TEST_P(TernaryMatmul, ManyRowsGoThroughSeveralPasses) {
  for (int n_tokens : {1, 2}) ExpectEqual(2100, 96, n_tokens, Fill::kRandom);
}

TEST_P(TernaryMatmul, NothingWrapsAtTheExtremes) {
  const struct {
    Fill fill;
    int product;
  } kExtremes[] = {{Fill::kAllZero, 0},
                   {Fill::kSaturated, 127},
                   {Fill::kNegated, 127},
                   {Fill::kOpposed, -127}};
  for (const auto& extreme : kExtremes) {
    for (int n_in : {16, 2048, 6912, 131056}) {
      for (int n_tokens : {1, 2, 5, 9}) {
        if (n_in > 100000 && n_tokens % 2 == 1) continue;
        const Problem p(17, n_in, n_tokens, extreme.fill, packing(), 1);
        const std::vector<float> y = Matmul(kernels(), p, 0, 17);
        const float sum = static_cast<float>(extreme.product * n_in);
        for (int t = 0; t < n_tokens; ++t) {
          const float expected = sum / p.s[t] * p.weights.scale;
          for (int r = 0; r < 17; ++r) {
            ASSERT_EQ(y[t * (17 + kGap) + r], expected)
                << "n_in " << n_in << " token " << t << " row " << r;
          }
        }
      }
    }
  }
}

TEST_P(TernaryMatmul, RowRangesWriteTheirRowsOnly) {
  for (int n_tokens : {1, 2, 3, 13}) {
    ExpectEqual(100, 48, n_tokens, Fill::kRandom, 0, 32);
    ExpectEqual(100, 48, n_tokens, Fill::kRandom, 32, 96);
    ExpectEqual(100, 48, n_tokens, Fill::kRandom, 96, 100);
    ExpectEqual(100, 48, n_tokens, Fill::kRandom, 64, 64);
  }
}

// The oracle itself, against a plain sum.
TEST(TernaryMatmulRef, IsTheDefinition) {
  const Problem p(37, 96, 3, Fill::kRandom, TernaryPacking::k2Bit, 1);
  const std::vector<float> y = Matmul(KernelsFor(Isa::kRef), p, 0, 37);
  for (int t = 0; t < 3; ++t) {
    for (int r = 0; r < 37; ++r) {
      double sum = 0;
      for (int k = 0; k < 96; ++k) {
        sum += TernaryWeightAt(p.weights, r, k) * p.q[t * 96 + k];
      }
      // Two roundings, of the division and of the product.
      const double expected = sum / p.s[t] * static_cast<double>(0.37f);
      ASSERT_NEAR(y[t * (37 + kGap) + r], expected,
                  std::abs(expected) * 0x1p-23);
    }
  }
}

TEST_P(TernaryMatmul, SilencedTokensGiveNan) {
  Problem p(32, 16, 3, Fill::kRandom, packing(), 2);
  for (int k = 0; k < 16; ++k) p.q[16 + k] = 0;
  p.sum[1] = 0;
  p.s[1] = 0.0f;
  const std::vector<float> y = Matmul(kernels(), p, 0, 32);
  for (int r = 0; r < 32; ++r) {
    EXPECT_FALSE(std::isnan(y[r]));
    EXPECT_TRUE(std::isnan(y[32 + kGap + r]));
  }
}

}  // namespace
}  // namespace tern
