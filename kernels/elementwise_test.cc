#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/kernels.h"
#include "kernels/kernels_testing.h"

namespace tern {
namespace {

using testing::SameArrays;

constexpr int kSizes[] = {1,  2,  7,  8,  9,   15,  16,   17,
                          24, 31, 33, 63, 100, 130, 2560, 6912};

// Plain numbers, then ones that overflow, underflow or are none.
std::vector<float> Input(int n, int kind, std::mt19937* rng) {
  std::vector<float> x = testing::RandomFloats(n, rng);
  if (kind == 1) testing::AddExtremes(/*with_nan=*/false, rng, &x);
  if (kind == 2) testing::AddExtremes(/*with_nan=*/true, rng, &x);
  if (kind == 3) {
    for (float& v : x) v *= 1e-22f;
  }
  return x;
}
constexpr int kKinds = 4;

class Elementwise : public testing::EveryIsa {
 protected:
  // Runs op(kernels, a, b, n, y) for the oracle and the kernel, apart and with
  // y in the place of a.
  template <typename Op>
  void ExpectEqual(Op op) {
    for (int n : kSizes) {
      for (int kind = 0; kind < kKinds; ++kind) {
        const unsigned seed = n * kKinds + kind;
        std::mt19937 rng(seed);
        const std::vector<float> a = Input(n, kind, &rng);
        const std::vector<float> b = Input(n, kind, &rng);
        std::vector<float> expected(n);
        op(ref(), a.data(), b.data(), n, expected.data());
        std::vector<float> actual(n);
        op(kernels(), a.data(), b.data(), n, actual.data());
        ASSERT_TRUE(SameArrays(expected, actual)) << "seed " << seed;
        std::vector<float> in_place = a;
        op(kernels(), in_place.data(), b.data(), n, in_place.data());
        ASSERT_TRUE(SameArrays(expected, in_place)) << "seed " << seed;
      }
    }
  }
};
TERN_EVERY_ISA(Elementwise);

TEST_P(Elementwise, RmsNormEqualsTheOracle) {
  ExpectEqual([](const Kernels& k, const float* x, const float* w, int n,
                 float* y) { k.rms_norm(x, w, n, 1e-5f, y); });
}

TEST_P(Elementwise, Relu2GateEqualsTheOracle) {
  ExpectEqual([](const Kernels& k, const float* gate, const float* up, int n,
                 float* y) { k.relu2_gate(gate, up, n, y); });
}

TEST_P(Elementwise, SiluGateEqualsTheOracle) {
  ExpectEqual([](const Kernels& k, const float* gate, const float* up, int n,
                 float* y) { k.silu_gate(gate, up, n, y); });
}

TEST_P(Elementwise, GatesMayReplaceUp) {
  std::mt19937 rng(5);
  const std::vector<float> gate = Input(37, 0, &rng);
  const std::vector<float> up = Input(37, 0, &rng);
  std::vector<float> expected(37);
  std::vector<float> y = up;
  ref().relu2_gate(gate.data(), up.data(), 37, expected.data());
  kernels().relu2_gate(gate.data(), y.data(), 37, y.data());
  EXPECT_TRUE(SameArrays(expected, y));
  y = up;
  ref().silu_gate(gate.data(), up.data(), 37, expected.data());
  kernels().silu_gate(gate.data(), y.data(), 37, y.data());
  EXPECT_TRUE(SameArrays(expected, y));
}

TEST_P(Elementwise, AddEqualsTheOracle) {
  ExpectEqual(
      [](const Kernels& k, const float* x, const float* y, int n, float* out) {
        if (out != x) std::copy(x, x + n, out);
        k.add(out, y, n);
      });
}

TEST_P(Elementwise, RopeRotateEqualsTheOracle) {
  for (RopePairing pairing : {RopePairing::kNeox, RopePairing::kNorm}) {
    for (int head_dim : {2, 4, 6, 8, 10, 14, 16, 18, 64, 100, 128, 256}) {
      for (int kind = 0; kind < kKinds; ++kind) {
        const unsigned seed = head_dim * kKinds + kind;
        std::mt19937 rng(seed);
        std::vector<float> expected = Input(head_dim, kind, &rng);
        std::vector<float> actual = expected;
        std::vector<float> cos(head_dim / 2);
        std::vector<float> sin(head_dim / 2);
        for (int i = 0; i < head_dim / 2; ++i) {
          cos[i] = std::cos(i * 0.7f);
          sin[i] = std::sin(i * 0.7f);
        }
        ref().rope_rotate(expected.data(), cos.data(), sin.data(), head_dim,
                          pairing);
        kernels().rope_rotate(actual.data(), cos.data(), sin.data(), head_dim,
                              pairing);
        ASSERT_TRUE(SameArrays(expected, actual))
            << "head_dim " << head_dim << " pairing "
            << static_cast<int>(pairing) << " seed " << seed;
      }
    }
  }
}

// Below, the oracle against the mathematics.

TEST(ElementwiseRef, RmsNormIsTheFormula) {
  constexpr int n = 1000;
  std::mt19937 rng(3);
  const std::vector<float> x = Input(n, 0, &rng);
  const std::vector<float> w = Input(n, 0, &rng);
  std::vector<float> y(n);
  KernelsFor(Isa::kRef).rms_norm(x.data(), w.data(), n, 1e-5f, y.data());
  double squares = 0;
  for (float v : x) squares += static_cast<double>(v) * v;
  const double r = 1 / std::sqrt(squares / n + 1e-5);
  for (int i = 0; i < n; ++i) {
    // 63 additions per lane and 4 in the tree, all of one sign, halved by the
    // root; then six single roundings.
    const double expected = x[i] * r * w[i];
    ASSERT_NEAR(y[i], expected, std::fabs(expected) * (67 / 2 + 6) * 0x1p-24)
        << i;
  }
}

TEST(ElementwiseRef, GatesAreTheFormulas) {
  std::mt19937 rng(4);
  const std::vector<float> g = Input(1000, 0, &rng);
  const std::vector<float> u = Input(1000, 0, &rng);
  std::vector<float> relu2(1000);
  std::vector<float> silu(1000);
  const Kernels& k = KernelsFor(Isa::kRef);
  k.relu2_gate(g.data(), u.data(), 1000, relu2.data());
  k.silu_gate(g.data(), u.data(), 1000, silu.data());
  for (int i = 0; i < 1000; ++i) {
    const double r = std::max(static_cast<double>(g[i]), 0.0);
    ASSERT_NEAR(relu2[i], r * r * u[i], r * r * std::fabs(u[i]) * 0x1p-23);
    // Two ulp of Exp, then an addition, a division and a product.
    const double s = g[i] / (1 + std::exp(-static_cast<double>(g[i]))) * u[i];
    ASSERT_NEAR(silu[i], s, std::fabs(s) * 7 * 0x1p-24) << g[i];
  }
}

TEST(ElementwiseRef, RopeRotatesPairs) {
  for (RopePairing pairing : {RopePairing::kNeox, RopePairing::kNorm}) {
    // A quarter turn of each pair: (a, b) becomes (-b, a).
    std::vector<float> x = {1, 2, 3, 4};
    const float cos[] = {0, 0};
    const float sin[] = {1, 1};
    KernelsFor(Isa::kRef).rope_rotate(x.data(), cos, sin, 4, pairing);
    EXPECT_EQ(x, pairing == RopePairing::kNeox
                     ? (std::vector<float>{-3, -4, 1, 2})
                     : (std::vector<float>{-2, 1, -4, 3}));
  }
}

TEST_P(Elementwise, NanGateIsClosedByRelu2) {
  const std::vector<float> gate(9, testing::kNan);
  const std::vector<float> up(9, 2.0f);
  std::vector<float> y(9);
  kernels().relu2_gate(gate.data(), up.data(), 9, y.data());
  EXPECT_TRUE(SameArrays(std::vector<float>(9, 0.0f), y));
}

}  // namespace
}  // namespace tern
