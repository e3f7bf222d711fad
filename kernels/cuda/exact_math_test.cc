// Functions of kernels that need no GPU to run, over far more values than the
// tests of the kernels see.

#include "kernels/cuda/exact_math.h"

#include <cstdint>
#include <cstring>
#include <random>

#include "gtest/gtest.h"
#include "kernels/cuda/sample_candidates.h"
#include "kernels/exp.h"
#include "kernels/float16.h"
#include "kernels/kernels_testing.h"

namespace tern::cuda {
namespace {

using ::tern::testing::SameBits;

float FloatOf(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof(x));
  return x;
}

TEST(ExactMath, ExpIsThatOfTheCpu) {
  // Every 997th float, of both signs, infinities and NaN among them.
  for (uint64_t bits = 0; bits <= 0xffffffffu; bits += 997) {
    const float x = FloatOf(static_cast<uint32_t>(bits));
    ASSERT_TRUE(SameBits(tern::Exp(x), Exp(x))) << x;
  }
}

TEST(ExactMath, HalvesAreThoseOfTheCpu) {
  for (uint64_t bits = 0; bits <= 0xffffffffu; bits += 997) {
    const float x = FloatOf(static_cast<uint32_t>(bits));
    ASSERT_EQ(SaturatingFloatToHalf(x), SaturatingHalf(x)) << x;
  }
}

TEST(SampleCandidates, WeightsRoundHalfToEven) {
  const auto expected = [](float factor) {
    const double scaled = static_cast<double>(factor) * 0x1p40;
    return static_cast<uint64_t>(
        static_cast<int64_t>((scaled + 0x1p52) - 0x1p52));
  };
  for (uint32_t bits = 0x00800000; bits <= 0x3f800000; bits += 331) {
    ASSERT_EQ(expected(FloatOf(bits)), WeightOf(FloatOf(bits))) << bits;
  }
  // Halves: of 2^-40, odd and even.
  for (const float factor : {0x1p-41f, 0x1.8p-40f, 0x1.4p-39f, 0x1.cp-39f,
                             0x1.000002p-41f, 0x1.fffffep-42f, 0x1p-42f}) {
    EXPECT_EQ(expected(factor), WeightOf(factor)) << factor;
  }
  EXPECT_EQ(WeightOf(0.0f), 0u);
  EXPECT_EQ(WeightOf(1.0f), uint64_t{1} << 40);
}

TEST(SampleCandidates, AreOrderedByZThenById) {
  std::mt19937 rng(3);
  for (int i = 0; i < 100000; ++i) {
    const float a = FloatOf(rng() & 0xff7fffffu);
    const float b = i % 3 == 0   ? a
                    : i % 3 == 1 ? -a
                                 : FloatOf(rng() & ~0x800000u);
    const int id_a = static_cast<int>(rng() % kSampleVocabularyMax);
    const int id_b = static_cast<int>(rng() % kSampleVocabularyMax);
    const Candidate ca = MakeCandidate(a, id_a);
    const Candidate cb = MakeCandidate(b, id_b);
    ASSERT_EQ(ca < cb, a != b ? a > b : id_a < id_b) << a << " " << b;
    ASSERT_EQ(ZOf(ca), a);
    ASSERT_EQ(IdOf(ca), id_a);
  }
}

}  // namespace
}  // namespace tern::cuda
