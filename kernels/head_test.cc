#include "kernels/head.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <iterator>
#include <numeric>
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/float16.h"
#include "kernels/head_packing.h"
#include "kernels/kernels.h"
#include "kernels/kernels_testing.h"
#include "kernels/quantize.h"

namespace tern {
namespace {

using testing::AlignedArray;
using testing::kInf;
using testing::SameArray;
using testing::SameArrays;

constexpr float kUntouched = -12345.0f;

constexpr DenseType kAllTypes[] = {DenseType::kF32,  DenseType::kF16,
                                   DenseType::kBF16, DenseType::kQ8_0,
                                   DenseType::kQ6_K, DenseType::kQ4_K};

uint16_t BrainFloat(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof(bits));
  return static_cast<uint16_t>(bits >> 16);
}

// A dense matrix whose bytes start at an odd address and end where they end.
struct Dense {
  Dense(DenseType type, int n_rows, int n_columns)
      : bytes(1 + n_rows * DenseRowBytes(type, n_columns)) {
    view = {bytes.data() + 1, type, n_rows, n_columns};
  }
  // F32 or F16.
  Dense(const std::vector<float>& values, DenseType type, int n_rows,
        int n_columns)
      : Dense(type, n_rows, n_columns) {
    for (size_t i = 0; i < values.size(); ++i) {
      char* at = &bytes[1 + i * DenseBlockBytes(type)];
      const uint16_t half = type == DenseType::kF16 ? FloatToHalf(values[i])
                                                    : BrainFloat(values[i]);
      if (type == DenseType::kF32) {
        std::memcpy(at, &values[i], 4);
      } else {
        std::memcpy(at, &half, 2);
      }
    }
  }
  // Random bytes, with scales of an ordinary size in the types that have some;
  // one scale in 30 is zero, subnormal, infinite or NaN if asked for.
  Dense(DenseType type, int n_rows, int n_columns, bool extremes,
        std::mt19937* rng)
      : Dense(type, n_rows, n_columns) {
    if (DenseBlockColumns(type) == 1) {
      std::vector<float> values =
          testing::RandomFloats(n_rows * n_columns, rng);
      if (extremes) testing::AddExtremes(n_rows == 3, rng, &values);
      *this = Dense(values, type, n_rows, n_columns);
      return;
    }
    for (char& byte : bytes) byte = static_cast<char>((*rng)());
    const size_t block_bytes = DenseBlockBytes(type);
    for (size_t at = 1; at < bytes.size(); at += block_bytes) {
      for (size_t place : ScalePlaces(type)) {
        const uint16_t odd[] = {0, 0x8000, 1, 0x83ff, 0x7bff, 0x7c00, 0x7e00};
        uint16_t half =
            FloatToHalf((static_cast<int>((*rng)() % 2000) - 1000) * 0x1p-12f);
        if (extremes && (*rng)() % 30 == 0) {
          half = odd[(*rng)() % std::size(odd)];
        }
        std::memcpy(&bytes[at + place], &half, 2);
      }
    }
  }
  // `view` points into `bytes`, whose memory a move keeps.
  Dense(Dense&&) = default;
  Dense& operator=(Dense&&) = default;

  // Where the float16 of a block lie.
  static std::vector<size_t> ScalePlaces(DenseType type) {
    switch (type) {
      case DenseType::kQ8_0:
        return {0};
      case DenseType::kQ6_K:
        return {208};
      case DenseType::kQ4_K:
        return {0, 2};
      default:
        return {};
    }
  }

  std::vector<char> bytes;
  DenseView view;
};

std::vector<float> Widened(const DenseView& w) {
  std::vector<float> values(static_cast<size_t>(w.n_rows) * w.n_columns);
  for (int row = 0; row < w.n_rows; ++row) {
    DenseRow(w, row, &values[static_cast<size_t>(row) * w.n_columns]);
  }
  return values;
}

struct Int8Head {
  Int8Head(const Kernels& kernels, const DenseView& w)
      : upper(Int8PlaneBytes(w.n_rows, w.n_columns), 99),
        lower(upper.size(), 99),
        scale(HeadPanelCount(w.n_rows) * kHeadPanelRows, kUntouched),
        norm(scale.size(), kUntouched) {
    for (int p = 0; p < HeadPanelCount(w.n_rows); ++p) {
      const size_t at = p * HeadPanelBytes(w.n_columns);
      const int row = p * kHeadPanelRows;
      const int bad = PackInt8Panel(
          kernels, w, p,
          {upper.data() + at, lower.data() + at, &scale[row], &norm[row]});
      if (bad >= 0) bad_rows.push_back(bad);
    }
    view = {upper.data(), lower.data(), scale.data(),
            norm.data(),  w.n_rows,     w.n_columns};
  }
  // q of a row and column, put together by the definition of Int8View.
  int At(int row, int column) const {
    const int shift = column % 8 / 4 * 4;
    const int byte = row % 4 * 4 + column % 4;
    const int h = upper[row / 16 * HeadPanelBytes(view.n_columns) +
                        column / 8 * 64 + row % 16 / 4 * 16 + byte];
    const int l = lower[row / 4 * HeadGroupBytes(view.n_columns) +
                        column / 8 * 16 + byte];
    return 16 * (h >> shift & 15) + (l >> shift & 15) - 128;
  }
  AlignedArray<uint8_t> upper;
  AlignedArray<uint8_t> lower;
  std::vector<float> scale;
  std::vector<float> norm;
  std::vector<int> bad_rows;  // the first of each panel
  Int8View view;
};

struct Tokens {
  Tokens(const Tokens&) = delete;
  Tokens(int n_tokens, int n, bool saturated, std::mt19937* rng)
      : q(static_cast<size_t>(n_tokens) * n), s(n_tokens), sum(n_tokens) {
    for (int t = 0; t < n_tokens; ++t) {
      s[t] = 3.7f + t;
      for (int k = 0; k < n; ++k) {
        int8_t& v = q[static_cast<size_t>(t) * n + k];
        v = static_cast<int8_t>(static_cast<int>((*rng)() % 255) - 127);
        if (saturated) v = t % 2 == 0 ? 127 : -127;
      }
    }
    view = {q.data(), s.data(), sum.data(), n_tokens, n};
    SumUp();
  }
  void SumUp() {
    for (int t = 0; t < view.n_tokens; ++t) {
      const int8_t* const first = q.data() + static_cast<size_t>(t) * view.n;
      sum[t] = std::accumulate(first, first + view.n, 0);
    }
  }
  float Norm(int t) const {
    int64_t squares = 0;
    for (int k = 0; k < view.n; ++k) {
      const int v = q[static_cast<size_t>(t) * view.n + k];
      squares += v * v;
    }
    return NormAbove(squares);
  }
  AlignedArray<int8_t> q;
  std::vector<float> s;
  std::vector<int32_t> sum;
  QuantizedTokens view;
};

class Head : public testing::EveryIsa {};
TERN_EVERY_ISA(Head);

TEST_P(Head, StoredEqualsTheOracle) {
  for (DenseType type : kAllTypes) {
    for (int n_columns : {1, 8, 15, 16, 17, 31, 32, 96, 100, 256, 512}) {
      if (n_columns % DenseBlockColumns(type) != 0) continue;
      for (int n_rows : {1, 3, 4, 13, 29}) {
        for (bool extremes : {false, true}) {
          const unsigned seed = n_columns * 100 + n_rows;
          std::mt19937 rng(seed);
          const Dense w(type, n_rows, n_columns, extremes, &rng);
          const std::vector<float> x = testing::RandomFloats(n_columns, &rng);
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

TEST_P(Head, StoredIsThatOfTheWidenedRows) {
  for (DenseType type : kAllTypes) {
    std::mt19937 rng(3);
    const Dense w(type, 5, 768, /*extremes=*/false, &rng);
    const Dense widened(Widened(w.view), DenseType::kF32, 5, 768);
    const std::vector<float> x = testing::RandomFloats(768, &rng);
    std::vector<float> expected(5);
    std::vector<float> actual(5);
    kernels().head_stored(widened.view, x.data(), 0, 5, expected.data());
    kernels().head_stored(w.view, x.data(), 0, 5, actual.data());
    EXPECT_TRUE(SameArrays(expected, actual)) << static_cast<int>(type);
  }
}

TEST_P(Head, WidenedRowsEqualTheOracle) {
  for (DenseType type : kAllTypes) {
    for (int n_columns : {1, 7, 8, 9, 33, 64, 100, 256, 768}) {
      if (n_columns % DenseBlockColumns(type) != 0) continue;
      for (bool extremes : {false, true}) {
        std::mt19937 rng(n_columns);
        const Dense w(type, 3, n_columns, extremes, &rng);
        for (int row = 0; row < 3; ++row) {
          std::vector<float> expected(n_columns);
          std::vector<float> actual(n_columns + 1, kUntouched);
          DenseRow(w.view, row, expected.data());
          const bool finite = kernels().widen_row(w.view, row, actual.data());
          EXPECT_EQ(finite,
                    std::all_of(expected.begin(), expected.end(),
                                [](float v) { return std::isfinite(v); }));
          EXPECT_EQ(actual.back(), kUntouched);
          ASSERT_TRUE(SameArray(expected.data(), actual.data(), n_columns))
              << "type " << static_cast<int>(type) << " row " << row
              << " columns " << n_columns << " extremes " << extremes;
        }
      }
    }
  }
}

TEST_P(Head, EveryHalfIsWidened) {
  std::vector<char> bytes(2 * 65536);
  for (int i = 0; i < 65536; ++i) {
    const uint16_t half = static_cast<uint16_t>(i);
    std::memcpy(&bytes[2 * i], &half, 2);
  }
  for (DenseType type : {DenseType::kF16, DenseType::kBF16}) {
    std::vector<float> expected(65536);
    std::vector<float> actual(65536);
    const DenseView w = {bytes.data(), type, 1, 65536};
    DenseRow(w, 0, expected.data());
    EXPECT_FALSE(kernels().widen_row(w, 0, actual.data()));
    EXPECT_TRUE(SameArrays(expected, actual));
    EXPECT_EQ(expected[0x3f80], type == DenseType::kF16 ? 1.875f : 1.0f);
  }
}

// At every place of a row: vectors and tail alike.
TEST_P(Head, AnElementThatIsNotFiniteIsSeen) {
  for (int n : {1, 15, 16, 45, 67}) {
    for (int place = 0; place < n; ++place) {
      for (float bad : {kInf, -kInf, testing::kNan, 3.4028235e38f}) {
        std::vector<float> values(n, 1.0f);
        values[place] = bad;
        const DenseView w = {values.data(), DenseType::kF32, 1, n};
        std::vector<float> row(n);
        EXPECT_EQ(kernels().widen_row(w, 0, row.data()), std::isfinite(bad));
        std::vector<int8_t> q(n, 99);
        const float d = kernels().quantize_head_row(values.data(), n, q.data());
        if (std::isfinite(bad)) {
          EXPECT_EQ(d, bad / 127.0f);
          EXPECT_EQ(q[place], 127);
        } else {
          EXPECT_EQ(d, 0.0f);
          EXPECT_EQ(q, std::vector<int8_t>(n, 0));
        }
      }
    }
  }
}

TEST_P(Head, QuantizedRowsEqualTheOracle) {
  for (int n : {1, 7, 16, 31, 32, 33, 100, 1000}) {
    // The last exceeds what a float holds when divided, or divides by zero.
    for (float scale : {1.0f, 1e-3f, 1e30f, 1e-30f, 1e-38f, 1e-42f, 0.0f}) {
      for (bool extremes : {false, true}) {
        std::mt19937 rng(n);
        std::vector<float> x = testing::RandomFloats(n, &rng);
        for (float& v : x) v *= scale;
        if (extremes) {
          testing::AddExtremes(false, &rng, &x);
          for (float& v : x) v = std::isfinite(v) ? v : 0.0f;
        }
        std::vector<int8_t> expected(n, 99);
        std::vector<int8_t> actual(n, 98);
        const float d = ref().quantize_head_row(x.data(), n, expected.data());
        EXPECT_TRUE(testing::SameBits(
            d, kernels().quantize_head_row(x.data(), n, actual.data())));
        ASSERT_TRUE(SameArrays(expected, actual)) << n << " scale " << scale;
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
      for (int n_columns : {16, 48, 528}) {
        const unsigned seed = n_tokens * 10000 + n_rows * 100 + n_columns;
        std::mt19937 rng(seed);
        const Dense w(testing::RandomFloats(n_rows * n_columns, &rng),
                      DenseType::kF32, n_rows, n_columns);
        const Int8Head head(kernels(), w.view);
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
  const Int8Head head(kernels(), w.view);
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

// What HeadInt8Bounds and HeadInt8Groups leave.
struct Halves {
  Halves(const Kernels& kernels, const Int8Head& head, const Tokens& x)
      : stride(HeadPanelCount(head.view.n_rows) * kHeadPanelRows),
        sums(x.view.n_tokens * stride),
        bounds(sums.size() / kHeadGroupRows, kUntouched),
        logits(sums.size(), kUntouched) {
    std::vector<float> x_norm;
    for (int t = 0; t < x.view.n_tokens; ++t) x_norm.push_back(x.Norm(t));
    const int n_panels = HeadPanelCount(head.view.n_rows);
    kernels.head_int8_bounds(head.view, x.view, x_norm.data(), n_panels / 2,
                             n_panels, sums.data(), bounds.data(), stride);
    kernels.head_int8_bounds(head.view, x.view, x_norm.data(), 0, n_panels / 2,
                             sums.data(), bounds.data(), stride);
    // Not in order, and without the first group where there are others.
    std::vector<int32_t> groups;
    const int n_groups = HeadGroupCount(head.view.n_rows);
    for (int g = n_groups - 1; g > 0; --g) groups.push_back(g);
    if (n_groups == 1) groups.push_back(0);
    kernels.head_int8_groups(head.view, x.view, groups.data(),
                             static_cast<int>(groups.size()), sums.data(),
                             logits.data(), stride);
  }
  size_t stride;
  std::vector<int32_t> sums;
  std::vector<float> bounds;
  std::vector<float> logits;
};

TEST_P(Head, HalvesEqualTheOracle) {
  for (int n_tokens : {1, 2, 3, 4, 5, 9}) {
    for (int n_rows : {1, 4, 15, 16, 17, 50}) {
      for (int n_columns : {16, 48, 528}) {
        const unsigned seed = n_tokens * 10000 + n_rows * 100 + n_columns;
        std::mt19937 rng(seed);
        const Dense w(testing::RandomFloats(n_rows * n_columns, &rng),
                      DenseType::kF32, n_rows, n_columns);
        const Int8Head head(kernels(), w.view);
        const Tokens x(n_tokens, n_columns, /*saturated=*/false, &rng);
        const Halves expected(ref(), head, x);
        const Halves actual(kernels(), head, x);
        ASSERT_TRUE(SameArrays(expected.sums, actual.sums)) << seed;
        ASSERT_TRUE(SameArrays(expected.bounds, actual.bounds)) << seed;
        ASSERT_TRUE(SameArrays(expected.logits, actual.logits)) << seed;
      }
    }
  }
}

TEST_P(Head, BothHalvesTogetherAreTheWhole) {
  std::mt19937 rng(11);
  const Dense w(testing::RandomFloats(37 * 208, &rng), DenseType::kF32, 37,
                208);
  const Int8Head head(kernels(), w.view);
  const Tokens x(3, 208, /*saturated=*/false, &rng);
  const Halves halves(kernels(), head, x);
  std::vector<float> whole(3 * halves.stride);
  kernels().head_int8(head.view, x.view, 0, 37, whole.data(), halves.stride);
  for (int t = 0; t < 3; ++t) {
    const size_t row = t * halves.stride;
    EXPECT_TRUE(
        testing::SameArray(&whole[row + 4], &halves.logits[row + 4], 33));
    EXPECT_EQ(halves.logits[row], kUntouched) << "not among the groups";
  }
}

// Rows and activations as unkind to the bound as can be: what the lower halves
// add is in the direction of the activations, so that Cauchy and Schwarz's
// inequality is an equality but for rounding.
TEST_P(Head, NoLogitExceedsItsBound) {
  for (int n_columns : {16, 208, 2560, 65536}) {
    for (int pattern = 0; pattern < 6; ++pattern) {
      const unsigned seed = n_columns + pattern;
      std::mt19937 rng(seed);
      constexpr int kRows = 19;
      Tokens x(2, n_columns, /*saturated=*/pattern == 1, &rng);
      std::vector<float> values(kRows * n_columns);
      for (int row = 0; row < kRows; ++row) {
        for (int k = 0; k < n_columns; ++k) {
          const int sign = x.q[k] < 0 ? -1 : 1;
          int q = static_cast<int>(rng() % 255) - 127;
          if (pattern == 2) q = 0;
          if (pattern == 3) q = sign * 127;
          // Low bits of 15 or 0, by the sign of the activation.
          if (pattern >= 4)
            q = 16 * (static_cast<int>(rng() % 15) - 7) + (sign > 0 ? 15 : 0);
          values[row * n_columns + k] = static_cast<float>(std::min(q, 127)) *
                                        (pattern == 5 ? 1e-38f : 1.0f);
        }
        values[row * n_columns] = pattern == 5 ? 127e-38f : 127.0f;
      }
      if (pattern >= 4) {
        for (int k = 0; k < n_columns; ++k) {
          x.q[k] = static_cast<int8_t>(x.q[k] < 0 ? -127 : 127);
        }
        x.SumUp();
      }
      const Dense w(values, DenseType::kF32, kRows, n_columns);
      const Int8Head head(kernels(), w.view);
      const Halves halves(kernels(), head, x);
      std::vector<float> whole(2 * halves.stride);
      kernels().head_int8(head.view, x.view, 0, kRows, whole.data(),
                          halves.stride);
      for (int t = 0; t < 2; ++t) {
        for (int row = 0; row < kRows; ++row) {
          const size_t at = t * halves.stride + row;
          ASSERT_LE(whole[at], halves.bounds[at / kHeadGroupRows])
              << "row " << row << " token " << t << " seed " << seed;
        }
      }
      // Groups without rows bound nothing.
      EXPECT_EQ(halves.bounds[5], -kInf);
    }
  }
}

TEST(HeadBounds, ProductsOfNormsRoundUp) {
  std::mt19937_64 rng(4);
  for (int i = 0; i < 100000; ++i) {
    const int64_t a = rng() >> (30 + rng() % 30);
    const int64_t b = rng() >> (30 + rng() % 30);
    const float product = NormAbove(a) * NormAbove(b);
    ASSERT_GE(static_cast<long double>(product),
              std::sqrt(static_cast<long double>(a)) *
                  std::sqrt(static_cast<long double>(b)))
        << a << " " << b;
  }
  EXPECT_EQ(NormAbove(0), 0.0f);
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

TEST_P(Head, RowsAreScaledToTheirLargestMagnitude) {
  std::vector<float> values(4 * 8);
  const std::vector<std::vector<float>> rows = {{1.0f, -2.0f, 0.5f, 0.0f},
                                                {},
                                                {3.0f, kInf, 1.0f, 1.0f},
                                                {1e-44f, 0.0f, -1e-44f, 0.0f}};
  for (size_t row = 0; row < rows.size(); ++row) {
    std::copy(rows[row].begin(), rows[row].end(), &values[row * 8]);
  }
  const Dense w(values, DenseType::kF32, 4, 8);
  const Int8Head head(kernels(), w.view);
  EXPECT_EQ(head.scale[0], 2.0f / 127.0f);
  // 63.5 and 31.75 round half to even.
  EXPECT_EQ(head.At(0, 0), 64);
  EXPECT_EQ(head.At(0, 1), -127);
  EXPECT_EQ(head.At(0, 2), 32);
  for (int row : {1, 2}) {
    EXPECT_EQ(head.scale[row], 0.0f);
    for (int k = 0; k < 8; ++k) EXPECT_EQ(head.At(row, k), 0);
  }
  // 127 / absmax overflows here; zeros must stay zeros.
  EXPECT_EQ(head.At(3, 0), 127);
  EXPECT_EQ(head.At(3, 1), 0);
  EXPECT_EQ(head.At(3, 2), -127);
  for (int row = 4; row < 16; ++row) {
    EXPECT_EQ(head.scale[row], 0.0f);
    EXPECT_EQ(head.At(row, 0), 0);
  }
}

TEST_P(Head, PackingNamesTheFirstRowThatIsNotFinite) {
  std::vector<float> values(40 * 16, 1.0f);
  values[19 * 16 + 3] = testing::kNan;
  values[30 * 16] = kInf;
  const Dense w(values, DenseType::kF32, 40, 16);
  const Int8Head head(kernels(), w.view);
  EXPECT_EQ(head.bad_rows, std::vector<int>{19});
  EXPECT_EQ(head.scale[18], 1.0f / 127.0f);
  EXPECT_EQ(head.scale[19], 0.0f);
  EXPECT_EQ(head.scale[30], 0.0f);
}

TEST_P(Head, EveryTypePacksAsItsWidenedRows) {
  for (DenseType type : kAllTypes) {
    std::mt19937 rng(5);
    const Dense w(type, 21, 512, /*extremes=*/false, &rng);
    const Dense widened(Widened(w.view), DenseType::kF32, 21, 512);
    const Int8Head expected(ref(), widened.view);
    const Int8Head actual(kernels(), w.view);
    EXPECT_TRUE(SameArrays(expected.upper, actual.upper));
    EXPECT_TRUE(SameArrays(expected.lower, actual.lower));
    EXPECT_TRUE(SameArrays(expected.scale, actual.scale));
    EXPECT_TRUE(SameArrays(expected.norm, actual.norm));
  }
}

TEST(DenseRows, SizesAreThoseOfTheFile) {
  EXPECT_EQ(DenseRowBytes(DenseType::kF32, 7), 28u);
  EXPECT_EQ(DenseRowBytes(DenseType::kF16, 7), 14u);
  EXPECT_EQ(DenseRowBytes(DenseType::kBF16, 7), 14u);
  EXPECT_EQ(DenseRowBytes(DenseType::kQ8_0, 96), 102u);
  EXPECT_EQ(DenseRowBytes(DenseType::kQ6_K, 768), 630u);
  EXPECT_EQ(DenseRowBytes(DenseType::kQ4_K, 512), 288u);
}

TEST(DenseRows, PlainTypesAreWidened) {
  const std::vector<float> values = {1.0f, -0.5f, 3.0f, 0x1p-14f};
  for (DenseType type : {DenseType::kF32, DenseType::kF16, DenseType::kBF16}) {
    const Dense w(values, type, 2, 2);
    std::vector<float> row(2);
    DenseRow(w.view, 1, row.data());
    EXPECT_EQ(row, (std::vector<float>{3.0f, 0x1p-14f}));
  }
}

// A weight at a time, from the definition of the format.

TEST(DenseRows, Q8_0IsAsDefined) {
  Dense w(DenseType::kQ8_0, 1, 64);
  uint8_t* block = reinterpret_cast<uint8_t*>(&w.bytes[1]);
  for (int b = 0; b < 2; ++b) {
    const uint16_t d = FloatToHalf(b == 0 ? 0.375f : -0x1p-24f);
    std::memcpy(block + 34 * b, &d, 2);
    for (int i = 0; i < 32; ++i) block[34 * b + 2 + i] = 8 * i + b;
  }
  std::vector<float> row(64);
  DenseRow(w.view, 0, row.data());
  EXPECT_EQ(row[0], 0.0f);
  EXPECT_EQ(row[1], 3.0f);
  EXPECT_EQ(row[15], 45.0f);
  EXPECT_EQ(row[16], -48.0f);
  EXPECT_EQ(row[31], -3.0f);
  EXPECT_EQ(row[32], -0x1p-24f);
  EXPECT_EQ(row[63], 7 * 0x1p-24f);
}

TEST(DenseRows, Q6_KIsAsDefined) {
  // Weight i is 0.5 * scale * (v(i) - 32) where v takes every value of 6 bits.
  const auto v = [](int i) { return (i * 11 + i / 64) % 64; };
  const auto scale = [](int group) { return group * 17 - 128; };
  Dense w(DenseType::kQ6_K, 1, 256);
  uint8_t* ql = reinterpret_cast<uint8_t*>(&w.bytes[1]);
  uint8_t* qh = ql + 128;
  uint8_t* sc = ql + 192;
  for (int h = 0; h < 2; ++h) {
    for (int l = 0; l < 32; ++l) {
      const int i = 128 * h + l;
      ql[64 * h + l] = (v(i) & 15) | (v(i + 64) & 15) << 4;
      ql[64 * h + 32 + l] = (v(i + 32) & 15) | (v(i + 96) & 15) << 4;
      qh[32 * h + l] = v(i) >> 4 | v(i + 32) >> 4 << 2 | v(i + 64) >> 4 << 4 |
                       v(i + 96) >> 4 << 6;
    }
  }
  for (int g = 0; g < 16; ++g) sc[g] = static_cast<uint8_t>(scale(g));
  const uint16_t d = FloatToHalf(0.5f);
  std::memcpy(ql + 208, &d, 2);
  std::vector<float> row(256);
  DenseRow(w.view, 0, row.data());
  for (int i = 0; i < 256; ++i) {
    EXPECT_EQ(row[i], 0.5f * scale(i / 16) * (v(i) - 32)) << i;
  }
}

TEST(DenseRows, Q4_KIsAsDefined) {
  const auto v = [](int i) { return (i * 7 + i / 32) % 16; };
  const int scale[8] = {0, 1, 31, 63, 2, 32, 45, 63};
  const int min[8] = {63, 0, 17, 5, 48, 1, 63, 22};
  Dense w(DenseType::kQ4_K, 1, 256);
  uint8_t* block = reinterpret_cast<uint8_t*>(&w.bytes[1]);
  uint8_t* sc = block + 4;
  for (int j = 0; j < 4; ++j) {
    sc[j] = scale[j] | scale[j + 4] >> 4 << 6;
    sc[j + 4] = min[j] | min[j + 4] >> 4 << 6;
    sc[j + 8] = (scale[j + 4] & 15) | (min[j + 4] & 15) << 4;
  }
  for (int i = 0; i < 256; ++i) {
    block[16 + i / 64 * 32 + i % 32] |= v(i) << (i / 32 % 2 * 4);
  }
  // Eleven bits each, so that the difference is rounded.
  const uint16_t d = FloatToHalf(2047 * 0x1p-14f);
  const uint16_t dmin = FloatToHalf(-1025 * 0x1p-20f);
  std::memcpy(block, &d, 2);
  std::memcpy(block + 2, &dmin, 2);
  std::vector<float> row(256);
  DenseRow(w.view, 0, row.data());
  for (int i = 0; i < 256; ++i) {
    const double exact =
        2047 * 0x1p-14 * scale[i / 32] * v(i) + 1025 * 0x1p-20 * min[i / 32];
    EXPECT_EQ(row[i], static_cast<float>(exact)) << i;
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
