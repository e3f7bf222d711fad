#include "kernels/attention.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/float16.h"
#include "kernels/kernels.h"
#include "kernels/kernels_testing.h"

namespace tern {
namespace {

using testing::AlignedArray;
using testing::SameArrays;

constexpr uint16_t kHalfNan = 0x7e00;
constexpr float kUntouched = -12345.0f;

struct Shape {
  int n_heads;
  int n_kv_heads;
  int head_dim;
};

// A paged cache with blocks in random order, spare ones between them, and
// `absent` (NaN if not given) wherever no position is.
class Cache {
 public:
  Cache(const Shape& shape, int n_positions, unsigned seed,
        uint16_t absent = kHalfNan)
      : shape_(shape),
        rng_(seed),
        n_blocks_((n_positions + kKvBlockSize - 1) / kKvBlockSize + 3),
        elements_(KvBlockElements(shape.n_kv_heads, shape.head_dim)),
        k_(n_blocks_ * elements_, absent),
        v_(n_blocks_ * elements_, absent),
        table_(n_blocks_),
        n_positions_(n_positions) {
    std::iota(table_.begin(), table_.end(), 0);
    std::shuffle(table_.begin(), table_.end(), rng_);
    table_.resize(n_blocks_ - 3);
    table_.shrink_to_fit();
    const size_t n = shape.n_kv_heads * shape.head_dim;
    for (int j = 0; j < n_positions; ++j) {
      keys_.push_back(testing::RandomFloats(n, &rng_));
      values_.push_back(testing::RandomFloats(n, &rng_));
      Store(j);
    }
    q_ = testing::RandomFloats(shape.n_heads * shape.head_dim, &rng_);
  }

  void Store(int position) {
    KernelsFor(Isa::kRef).store_kv(Block(position), position % kKvBlockSize,
                                   keys_[position].data(),
                                   values_[position].data());
  }

  KvBlockView Block(int position) {
    const size_t at = table_[position / kKvBlockSize] * elements_;
    return {k_.data() + at, v_.data() + at, shape_.n_kv_heads, shape_.head_dim};
  }

  AttentionArgs Args() const {
    return {q_.data(),
            k_.data(),
            v_.data(),
            table_.data(),
            n_positions_,
            shape_.n_heads,
            shape_.n_kv_heads,
            shape_.head_dim,
            static_cast<float>(1 / std::sqrt(double{1} * shape_.head_dim))};
  }

  // The query of the last position.
  std::vector<float> Attend(const Kernels& kernels, int head_begin,
                            int head_end) const {
    std::vector<float> y(q_.size(), kUntouched);
    kernels.attend(Args(), head_begin, head_end, y.data());
    return y;
  }

  // The queries of the last n_queries positions together.
  std::vector<float> AttendLast(const Kernels& kernels, int n_queries,
                                int head_begin, int head_end) const {
    std::mt19937 rng(n_queries);
    const std::vector<float> q =
        testing::RandomFloats(n_queries * q_.size(), &rng);
    std::vector<float> y(q.size(), kUntouched);
    AttentionArgs args = Args();
    args.q = q.data();
    args.n_positions = n_positions_ - n_queries + 1;
    args.n_queries = n_queries;
    kernels.attend(args, head_begin, head_end, y.data());
    return y;
  }

  // Puts a NaN, which nothing stores, where the value of a position is.
  void PoisonValue(int position) {
    const KvBlockView block = Block(position);
    block.v[position % kKvBlockSize * shape_.head_dim] = kHalfNan;
  }

  std::vector<float>& q() { return q_; }
  std::vector<float>& key(int position) { return keys_[position]; }
  std::vector<float>& value(int position) { return values_[position]; }

 private:
  Shape shape_;
  std::mt19937 rng_;
  size_t n_blocks_;
  size_t elements_;
  AlignedArray<uint16_t> k_;
  AlignedArray<uint16_t> v_;
  std::vector<int32_t> table_;
  int n_positions_;
  std::vector<std::vector<float>> keys_;
  std::vector<std::vector<float>> values_;
  std::vector<float> q_;
};

class Attention : public testing::EveryIsa {};
TERN_EVERY_ISA(Attention);

TEST_P(Attention, EqualsTheOracleForEveryLength) {
  const Shape shape = {4, 1, 32};
  for (int n = 1; n <= 200; ++n) {
    const Cache cache(shape, n, n);
    ASSERT_TRUE(
        SameArrays(cache.Attend(ref(), 0, 4), cache.Attend(kernels(), 0, 4)))
        << "n_positions " << n << " (also the seed)";
  }
}

// A maximum passes over NaN: what does not belong to it must also be seen when
// it is large.
TEST_P(Attention, AbsentPositionsHaveNoInfluence) {
  constexpr uint16_t kLargest = 0x7bff;
  const Shape shape = {4, 1, 32};
  for (int n = 1; n <= 70; ++n) {
    const Cache cache(shape, n, n);
    const Cache other(shape, n, n, kLargest);
    ASSERT_TRUE(SameArrays(cache.Attend(kernels(), 0, 4),
                           other.Attend(kernels(), 0, 4)))
        << "n_positions " << n << " (also the seed)";
  }
}

TEST_P(Attention, EqualsTheOracleForEveryHeadDim) {
  for (int head_dim = 2; head_dim <= 256; head_dim += 2) {
    const Cache cache({3, 1, head_dim}, 83, head_dim);
    ASSERT_TRUE(
        SameArrays(cache.Attend(ref(), 0, 3), cache.Attend(kernels(), 0, 3)))
        << "head_dim " << head_dim << " (also the seed)";
  }
}

TEST_P(Attention, EqualsTheOracleForEveryGroupAndHeadRange) {
  for (const Shape& shape :
       {Shape{1, 1, 16}, Shape{5, 5, 16}, Shape{6, 3, 20}, Shape{20, 5, 100},
        Shape{7, 1, 64}, Shape{18, 2, 48}}) {
    const Cache cache(shape, 70, 1);
    for (int begin = 0; begin <= shape.n_heads; ++begin) {
      for (int end = begin; end <= shape.n_heads; end += 3) {
        ASSERT_TRUE(SameArrays(cache.Attend(ref(), begin, end),
                               cache.Attend(kernels(), begin, end)))
            << shape.n_heads << " heads, " << shape.n_kv_heads
            << " kv heads, range [" << begin << ", " << end << ")";
      }
    }
  }
}

TEST_P(Attention, QueriesTogetherEqualTheOracle) {
  for (const Shape& shape : {Shape{1, 1, 18}, Shape{4, 4, 16}, Shape{8, 2, 36},
                             Shape{6, 2, 64}, Shape{5, 1, 72}}) {
    for (int n_positions : {5, 16, 64, 65, 70, 130, 192, 200}) {
      for (int n_queries : {1, 2, 3, 5, 8, 17, 70}) {
        if (n_queries > n_positions) continue;
        const Cache cache(shape, n_positions, n_positions);
        ASSERT_TRUE(SameArrays(
            cache.AttendLast(ref(), n_queries, 0, shape.n_heads),
            cache.AttendLast(kernels(), n_queries, 0, shape.n_heads)))
            << shape.n_heads << " heads of " << shape.head_dim << ", "
            << n_positions << " positions, " << n_queries << " queries";
      }
    }
  }
}

TEST_P(Attention, QueriesTogetherKeepToTheirHeads) {
  const Cache cache({6, 2, 16}, 70, 5);
  for (int begin = 0; begin <= 6; ++begin) {
    for (int end = begin; end <= 6; ++end) {
      ASSERT_TRUE(SameArrays(cache.AttendLast(ref(), 9, begin, end),
                             cache.AttendLast(kernels(), 9, begin, end)))
          << "heads [" << begin << ", " << end << ")";
    }
  }
}

TEST_P(Attention, QueriesDoNotSeeLaterPositions) {
  for (int n_positions : {12, 66, 129}) {
    Cache cache({2, 1, 16}, n_positions, 8);
    cache.PoisonValue(n_positions - 2);
    const std::vector<float> y = cache.AttendLast(kernels(), 10, 0, 2);
    for (int i = 0; i < 8; ++i) {
      EXPECT_FALSE(std::isnan(y[i * 32])) << n_positions << " query " << i;
    }
    EXPECT_TRUE(std::isnan(y[8 * 32]));
    EXPECT_TRUE(std::isnan(y[9 * 32]));
  }
}

TEST_P(Attention, EqualsTheOracleWhenScoresSaturateOrVanish) {
  for (float factor : {0.0f, 1e-30f, 50.0f, 1e4f, 1e30f, 3e38f}) {
    Cache cache({2, 1, 36}, 150, 11);
    for (float& v : cache.q()) v *= factor;
    ASSERT_TRUE(
        SameArrays(cache.Attend(ref(), 0, 2), cache.Attend(kernels(), 0, 2)))
        << factor;
  }
}

TEST_P(Attention, EqualsTheOracleForQueriesThatAreNoNumbers) {
  for (unsigned seed = 0; seed < 20; ++seed) {
    Cache cache({2, 1, 18}, 130, seed);
    std::mt19937 rng(seed);
    testing::AddExtremes(/*with_nan=*/true, &rng, &cache.q());
    // One head stays finite in part of the runs.
    if (seed % 2 == 0) {
      for (int d = 0; d < 18; ++d) cache.q()[d] = 0.1f * d;
    }
    ASSERT_TRUE(
        SameArrays(cache.Attend(ref(), 0, 2), cache.Attend(kernels(), 0, 2)))
        << "seed " << seed;
  }
}

TEST_P(Attention, OnePositionGivesItsValue) {
  Cache cache({1, 1, 8}, 1, 3);
  const std::vector<float> y = cache.Attend(kernels(), 0, 1);
  for (int d = 0; d < 8; ++d) {
    EXPECT_EQ(y[d], HalfToFloat(FloatToHalf(cache.value(0)[d])));
  }
}

TEST_P(Attention, StoreKvEqualsTheOracle) {
  for (int head_dim : {2, 8, 10, 16, 100, 128}) {
    for (int slot : {0, 7, 15}) {
      const unsigned seed = head_dim * 100 + slot;
      std::mt19937 rng(seed);
      std::vector<float> k = testing::RandomFloats(3 * head_dim, &rng);
      std::vector<float> v = testing::RandomFloats(3 * head_dim, &rng);
      testing::AddExtremes(/*with_nan=*/true, &rng, &k);
      testing::AddExtremes(/*with_nan=*/true, &rng, &v);
      const size_t n = KvBlockElements(3, head_dim);
      AlignedArray<uint16_t> expected_k(n, 0xabcd);
      AlignedArray<uint16_t> expected_v(n, 0xabcd);
      AlignedArray<uint16_t> actual_k(n, 0xabcd);
      AlignedArray<uint16_t> actual_v(n, 0xabcd);
      ref().store_kv({expected_k.data(), expected_v.data(), 3, head_dim}, slot,
                     k.data(), v.data());
      kernels().store_kv({actual_k.data(), actual_v.data(), 3, head_dim}, slot,
                         k.data(), v.data());
      // Other slots keep 0xabcd.
      ASSERT_TRUE(SameArrays(expected_k, actual_k)) << "seed " << seed;
      ASSERT_TRUE(SameArrays(expected_v, actual_v)) << "seed " << seed;
    }
  }
}

TEST_P(Attention, StoreKvSaturates) {
  const float k[] = {65520.0f, -1e9f};
  const float v[] = {testing::kNan, -testing::kInf};
  AlignedArray<uint16_t> k_block(KvBlockElements(1, 2));
  AlignedArray<uint16_t> v_block(KvBlockElements(1, 2));
  kernels().store_kv({k_block.data(), v_block.data(), 1, 2}, 5, k, v);
  EXPECT_EQ(k_block[5], 0x7bff);
  EXPECT_EQ(k_block[16 + 5], 0xfbff);
  EXPECT_EQ(v_block[5 * 2], 0x7bff);
  EXPECT_EQ(v_block[5 * 2 + 1], 0xfbff);
}

// The oracle against softmax in float64.
TEST(AttentionRef, IsSoftmaxOfTheScores) {
  const Shape shape = {4, 2, 24};
  constexpr int n = 145;
  Cache cache(shape, n, 21);
  const std::vector<float> y = cache.Attend(KernelsFor(Isa::kRef), 0, 4);
  const AttentionArgs args = cache.Args();
  const auto widen = [](float x) {
    return static_cast<double>(HalfToFloat(FloatToHalf(x)));
  };
  for (int h = 0; h < 4; ++h) {
    const size_t kv = h / 2 * 24;
    std::vector<double> score(n);
    double score_error = 0;
    for (int j = 0; j < n; ++j) {
      double magnitude = 0;
      for (int d = 0; d < 24; ++d) {
        const double product =
            cache.q()[h * 24 + d] * widen(cache.key(j)[kv + d]) * args.scale;
        score[j] += product;
        magnitude += std::fabs(product);
      }
      // 24 roundings of the sum and one of the scaling.
      score_error = std::max(score_error, 25 * 0x1p-24 * magnitude);
    }
    const double max = *std::max_element(score.begin(), score.end());
    double sum = 0;
    for (double s : score) sum += std::exp(s - max);
    for (int d = 0; d < 24; ++d) {
      double expected = 0;
      double magnitude = 0;
      for (int j = 0; j < n; ++j) {
        const double p = std::exp(score[j] - max) / sum;
        expected += p * widen(cache.value(j)[kv + d]);
        magnitude += p * std::fabs(widen(cache.value(j)[kv + d]));
      }
      // A score's error is a factor of its weight, in numerator and sum; the
      // difference from the maximum adds one rounding of up to 2^-24 * |s - m|.
      // Then 64 roundings of the values, 7 of the sums, 2 per Exp, and 3 per
      // merge.
      double spread = 0;
      for (double s : score) spread = std::max(spread, max - s);
      const double tolerance =
          magnitude * (2 * (score_error + spread * 0x1p-24) +
                       (64 + 7 + 4 + 2 * 9) * 0x1p-24);
      ASSERT_NEAR(y[h * 24 + d], expected, tolerance) << h << " " << d;
    }
  }
}

}  // namespace
}  // namespace tern
