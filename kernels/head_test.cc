#include "kernels/head.h"

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/float16.h"
#include "kernels/kernels.h"
#include "kernels/kernels_testing.h"
#include "kernels/quantize.h"

namespace tern {
namespace {

using testing::AlignedArray;
using testing::kInf;
using testing::SameArrays;

constexpr float kUntouched = -12345.0f;

// A dense matrix whose bytes start at an odd address.
struct Dense {
  Dense(const std::vector<float>& values, DenseType type, int n_rows,
        int n_columns) {
    bytes.resize(1 + values.size() * DenseTypeBytes(type));
    for (size_t i = 0; i < values.size(); ++i) {
      char* at = &bytes[1 + i * DenseTypeBytes(type)];
      const uint16_t half = FloatToHalf(values[i]);
      if (type == DenseType::kF16) {
        std::memcpy(at, &half, 2);
      } else {
        std::memcpy(at, &values[i], 4);
      }
    }
    view = {bytes.data() + 1, type, n_rows, n_columns};
  }
  std::vector<char> bytes;
  DenseView view;
};

struct Int8Head {
  explicit Int8Head(const DenseView& w)
      : packed(Int8PackedBytes(w.n_rows, w.n_columns)),
        scale(HeadPanelCount(w.n_rows) * kHeadPanelRows),
        sum(scale.size()) {
    for (int p = 0; p < HeadPanelCount(w.n_rows); ++p) {
      PackInt8Panel(w, p, packed.data() + p * HeadPanelBytes(w.n_columns),
                    &scale[p * kHeadPanelRows], &sum[p * kHeadPanelRows]);
    }
    scale.resize(w.n_rows);
    scale.shrink_to_fit();
    view = {packed.data(), scale.data(), sum.data(), w.n_rows, w.n_columns};
  }
  int At(int row, int column) const {
    return packed[row / 16 * HeadPanelBytes(view.n_columns) + column / 4 * 64 +
                  row % 16 * 4 + column % 4];
  }
  AlignedArray<int8_t> packed;
  std::vector<float> scale;
  std::vector<int32_t> sum;
  Int8View view;
};

struct Tokens {
  Tokens(int n_tokens, int n, bool saturated, std::mt19937* rng)
      : q(static_cast<size_t>(n_tokens) * n), s(n_tokens), sum(n_tokens) {
    for (int t = 0; t < n_tokens; ++t) {
      s[t] = 3.7f + t;
      for (int k = 0; k < n; ++k) {
        int8_t& v = q[static_cast<size_t>(t) * n + k];
        v = static_cast<int8_t>(static_cast<int>((*rng)() % 255) - 127);
        if (saturated) v = t % 2 == 0 ? 127 : -127;
        sum[t] += v;
      }
    }
    view = {q.data(), s.data(), sum.data(), n_tokens, n};
  }
  AlignedArray<int8_t> q;
  std::vector<float> s;
  std::vector<int32_t> sum;
  QuantizedTokens view;
};

class Head : public testing::EveryIsa {};
TERN_EVERY_ISA(Head);

TEST_P(Head, StoredEqualsTheOracle) {
  for (DenseType type : {DenseType::kF32, DenseType::kF16}) {
    for (int n_columns : {1, 8, 15, 16, 17, 31, 100, 256}) {
      for (int n_rows : {1, 3, 4, 13, 29}) {
        for (bool extremes : {false, true}) {
          const unsigned seed = n_columns * 100 + n_rows;
          std::mt19937 rng(seed);
          std::vector<float> values =
              testing::RandomFloats(n_rows * n_columns, &rng);
          const std::vector<float> x = testing::RandomFloats(n_columns, &rng);
          if (extremes) testing::AddExtremes(n_rows == 3, &rng, &values);
          const Dense w(values, type, n_rows, n_columns);
          std::vector<float> expected(n_rows, kUntouched);
          std::vector<float> actual = expected;
          ref().head_stored(w.view, x.data(), n_rows / 3, n_rows,
                            expected.data());
          kernels().head_stored(w.view, x.data(), n_rows / 3, n_rows,
                                actual.data());
          ASSERT_TRUE(SameArrays(expected, actual))
              << "rows " << n_rows << " columns " << n_columns << " type "
              << static_cast<int>(type) << " extremes " << extremes << " seed "
              << seed;
        }
      }
    }
  }
}

TEST_P(Head, StoredKeepsTheSignOfAZeroSum) {
  // Each product underflows to -0, in every lane. A tail that added zeros to
  // the lanes it lacks would make the sum +0.
  const std::vector<float> x(19, 1e-30f);
  for (int n_rows : {1, 4, 8}) {
    const Dense w(std::vector<float>(19 * n_rows, -1e-30f), DenseType::kF32,
                  n_rows, 19);
    std::vector<float> logits(n_rows);
    kernels().head_stored(w.view, x.data(), 0, n_rows, logits.data());
    EXPECT_TRUE(SameArrays(std::vector<float>(n_rows, -0.0f), logits));
  }
}

TEST_P(Head, Int8EqualsTheOracle) {
  for (int n_tokens : {1, 2, 3, 4, 5, 7, 12, 13, 33}) {
    for (int n_rows : {1, 15, 16, 17, 50}) {
      for (int n_columns : {16, 48, 256}) {
        const unsigned seed = n_tokens * 10000 + n_rows * 100 + n_columns;
        std::mt19937 rng(seed);
        const Dense w(testing::RandomFloats(n_rows * n_columns, &rng),
                      DenseType::kF32, n_rows, n_columns);
        const Int8Head head(w.view);
        const Tokens x(n_tokens, n_columns, /*saturated=*/false, &rng);
        const size_t stride = n_rows + 2;
        for (int row_begin : {0, n_rows / 2, n_rows}) {
          std::vector<float> expected(n_tokens * stride, kUntouched);
          std::vector<float> actual = expected;
          ref().head_int8(head.view, x.view, row_begin, n_rows, expected.data(),
                          stride);
          kernels().head_int8(head.view, x.view, row_begin, n_rows,
                              actual.data(), stride);
          ASSERT_TRUE(SameArrays(expected, actual))
              << "rows [" << row_begin << ", " << n_rows << ") columns "
              << n_columns << " tokens " << n_tokens << " seed " << seed;
        }
      }
    }
  }
}

TEST_P(Head, Int8SumsThatFillInt32AreExact) {
  constexpr int kColumns = 131056;
  std::vector<float> values(2 * kColumns, 1.0f);
  for (int k = 0; k < kColumns; ++k) values[kColumns + k] = -1.0f;
  const Dense w(values, DenseType::kF32, 2, kColumns);
  const Int8Head head(w.view);
  std::mt19937 rng(1);
  const Tokens x(2, kColumns, /*saturated=*/true, &rng);
  float logits[4];
  kernels().head_int8(head.view, x.view, 0, 2, logits, 2);
  const int32_t sum = 127 * 127 * kColumns;
  EXPECT_EQ(logits[0], static_cast<float>(sum) / x.s[0] * head.scale[0]);
  EXPECT_EQ(logits[1], static_cast<float>(-sum) / x.s[0] * head.scale[1]);
  EXPECT_EQ(logits[2], static_cast<float>(-sum) / x.s[1] * head.scale[0]);
  EXPECT_EQ(logits[3], static_cast<float>(sum) / x.s[1] * head.scale[1]);
}

TEST(HeadRef, StoredIsTheDotProduct) {
  constexpr int n = 1001;
  std::mt19937 rng(9);
  const std::vector<float> values = testing::RandomFloats(n, &rng);
  const std::vector<float> x = testing::RandomFloats(n, &rng);
  const Dense w(values, DenseType::kF32, 1, n);
  float logit;
  KernelsFor(Isa::kRef).head_stored(w.view, x.data(), 0, 1, &logit);
  double dot = 0;
  double magnitude = 0;
  for (int k = 0; k < n; ++k) {
    dot += static_cast<double>(x[k]) * values[k];
    magnitude += std::fabs(static_cast<double>(x[k]) * values[k]);
  }
  // 63 roundings in a lane and 4 in the tree.
  EXPECT_NEAR(logit, dot, 67 * 0x1p-24 * magnitude);
}

TEST(HeadPacking, RowsAreScaledToTheirLargestMagnitude) {
  const Dense w({1.0f, -2.0f, 0.5f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 3.0f, kInf,
                 1.0f, 1.0f, 1e-44f, 0.0f, -1e-44f, 0.0f},
                DenseType::kF32, 4, 4);
  const Int8Head head(w.view);
  EXPECT_EQ(head.scale[0], 2.0f / 127.0f);
  // 63.5 and 31.75 round half to even.
  EXPECT_EQ(head.At(0, 0), 64);
  EXPECT_EQ(head.At(0, 1), -127);
  EXPECT_EQ(head.At(0, 2), 32);
  EXPECT_EQ(head.sum[0], -31);
  for (int row : {1, 2}) {
    EXPECT_EQ(head.scale[row], 0.0f);
    for (int k = 0; k < 4; ++k) EXPECT_EQ(head.At(row, k), 0);
  }
  // 127 / absmax overflows here; zeros must stay zeros.
  EXPECT_EQ(head.At(3, 0), 127);
  EXPECT_EQ(head.At(3, 1), 0);
  EXPECT_EQ(head.At(3, 2), -127);
  for (int row = 4; row < 16; ++row) EXPECT_EQ(head.At(row, 0), 0);
}

TEST(HeadPacking, DenseRowWidensBothTypes) {
  const std::vector<float> values = {1.0f, -0.5f, 65504.0f, 0x1p-24f};
  for (DenseType type : {DenseType::kF32, DenseType::kF16}) {
    const Dense w(values, type, 2, 2);
    std::vector<float> row(2);
    DenseRow(w.view, 1, row.data());
    EXPECT_EQ(row, (std::vector<float>{65504.0f, 0x1p-24f}));
  }
}

TEST(HeadModes, NamesParseBack) {
  HeadMode mode;
  ASSERT_TRUE(ParseHeadMode("stored", &mode));
  EXPECT_EQ(mode, HeadMode::kStored);
  ASSERT_TRUE(ParseHeadMode("int8", &mode));
  EXPECT_EQ(mode, HeadMode::kInt8);
  EXPECT_FALSE(ParseHeadMode("int4", &mode));
}

}  // namespace
}  // namespace tern
