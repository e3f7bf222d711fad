#include "kernels/quantize.h"

#include <cmath>
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/kernels.h"
#include "kernels/kernels_testing.h"

namespace tern {
namespace {

using testing::kInf;
using testing::kNan;
using testing::SameArrays;

struct Quantized {
  QuantizedScale scale;
  std::vector<int8_t> q;
};

Quantized Quantize(const Kernels& kernels, const std::vector<float>& x) {
  Quantized result;
  result.q.resize(x.size());
  result.scale = kernels.quantize_token(x.data(), static_cast<int>(x.size()),
                                        result.q.data());
  return result;
}

class QuantizeToken : public testing::EveryIsa {};
TERN_EVERY_ISA(QuantizeToken);

TEST_P(QuantizeToken, EqualsTheOracle) {
  for (int n : {1, 7, 8, 15, 16, 31, 32, 33, 100, 2560, 6912}) {
    for (int kind = 0; kind < 4; ++kind) {
      const unsigned seed = n * 10 + kind;
      std::mt19937 rng(seed);
      std::vector<float> x = testing::RandomFloats(n, &rng);
      if (kind == 1) testing::AddExtremes(/*with_nan=*/true, &rng, &x);
      if (kind == 2) testing::AddExtremes(/*with_nan=*/false, &rng, &x);
      if (kind == 3) {
        for (float& v : x) v *= 1e-39f;
      }
      const Quantized expected = Quantize(ref(), x);
      const Quantized actual = Quantize(kernels(), x);
      ASSERT_TRUE(SameArrays(expected.q, actual.q)) << n << " seed " << seed;
      ASSERT_TRUE(testing::SameBits(expected.scale.s, actual.scale.s))
          << n << " seed " << seed;
      ASSERT_EQ(expected.scale.sum, actual.scale.sum) << n << " seed " << seed;
    }
  }
}

TEST_P(QuantizeToken, TiesGoToEvenAndTheLargestIs127) {
  // s is 127 / 127 = 1, so that halves are exact ties.
  const Quantized result = Quantize(
      kernels(), {127.0f, -127.0f, 0.5f, 1.5f, 2.5f, -0.5f, -1.5f, 3.49f});
  EXPECT_EQ(result.scale.s, 1.0f);
  EXPECT_EQ(result.q, (std::vector<int8_t>{127, -127, 0, 2, 2, 0, -2, 3}));
  EXPECT_EQ(result.scale.sum, 5);
}

TEST_P(QuantizeToken, ZerosKeepTheFloorOfTheScale) {
  const Quantized result = Quantize(kernels(), std::vector<float>(64, 0.0f));
  EXPECT_EQ(result.scale.s, 127.0f / 1e-5f);
  EXPECT_EQ(result.scale.sum, 0);
}

TEST_P(QuantizeToken, NanIsZeroAndInfinitySilencesTheToken) {
  const Quantized nan = Quantize(kernels(), {kNan, 2.0f, -1.0f});
  EXPECT_EQ(nan.scale.s, 63.5f);
  EXPECT_EQ(nan.q, (std::vector<int8_t>{0, 127, -64}));
  const Quantized inf = Quantize(kernels(), {-kInf, 2.0f, kNan});
  EXPECT_TRUE(testing::SameBits(inf.scale.s, 0.0f));
  EXPECT_EQ(inf.q, (std::vector<int8_t>{0, 0, 0}));
}

}  // namespace
}  // namespace tern
