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

enum class Fill { kRandom, kAllZero, kSaturated, kNegated };

// A packed matrix and quantised tokens.
struct Problem {
  Problem(int n_out, int n_in, int n_tokens, Fill fill, unsigned seed)
      : packed(PackedBytes(n_out, n_in)),
        q(static_cast<size_t>(n_tokens) * n_in),
        s(n_tokens),
        sum(n_tokens) {
    std::mt19937 rng(seed);
    std::vector<uint8_t> codes(static_cast<size_t>(kPanelRows) * n_in);
    for (int p = 0; p < PanelCount(n_out); ++p) {
      for (uint8_t& code : codes) {
        code = fill == Fill::kAllZero     ? 1
               : fill == Fill::kSaturated ? 2
               : fill == Fill::kNegated   ? 0
                                          : rng() % 3;
      }
      PackTernaryPanel(codes.data(),
                       std::min(kPanelRows, n_out - p * kPanelRows), n_in,
                       packed.data() + p * PanelBytes(n_in));
    }
    for (int t = 0; t < n_tokens; ++t) {
      for (int k = 0; k < n_in; ++k) {
        int8_t& value = q[static_cast<size_t>(t) * n_in + k];
        value = static_cast<int8_t>(static_cast<int>(rng() % 255) - 127);
        if (fill == Fill::kSaturated) value = 127;
        if (fill == Fill::kNegated) value = -127;
        sum[t] += value;
      }
      s[t] = 0.5f + t;
    }
    weights = {packed.data(), n_out, n_in, 0.37f};
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

class TernaryMatmul : public testing::EveryIsa {
 protected:
  void ExpectEqual(int n_out, int n_in, int n_tokens, Fill fill,
                   int row_begin = 0, int row_end = -1) {
    if (row_end < 0) row_end = n_out;
    const unsigned seed = n_out * 7919 + n_in * 31 + n_tokens;
    const Problem p(n_out, n_in, n_tokens, fill, seed);
    // Outside the range and between tokens both must leave kUntouched.
    ASSERT_TRUE(testing::SameArrays(Matmul(ref(), p, row_begin, row_end),
                                    Matmul(kernels(), p, row_begin, row_end)))
        << "n_out " << n_out << " n_in " << n_in << " tokens " << n_tokens
        << " rows [" << row_begin << ", " << row_end << ") fill "
        << static_cast<int>(fill) << " seed " << seed;
  }
};
TERN_EVERY_ISA(TernaryMatmul);

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

TEST_P(TernaryMatmul, NothingWrapsAtTheExtremes) {
  for (Fill fill : {Fill::kAllZero, Fill::kSaturated, Fill::kNegated}) {
    for (int n_in : {16, 2048, 6912, 131056}) {
      for (int n_tokens : {1, 2, 5}) ExpectEqual(17, n_in, n_tokens, fill);
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
  const Problem p(37, 96, 3, Fill::kRandom, 1);
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
  Problem p(32, 16, 3, Fill::kRandom, 2);
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
