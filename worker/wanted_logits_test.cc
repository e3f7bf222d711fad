#include "worker/wanted_logits.h"

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>

#include "gtest/gtest.h"

namespace tern {
namespace {

constexpr float kMax = std::numeric_limits<float>::max();
constexpr float kSmallest = std::numeric_limits<float>::denorm_min();

TEST(ScaledLogit, DividesAndStaysFinite) {
  EXPECT_EQ(ScaledLogit(3, 0), 3);
  EXPECT_EQ(ScaledLogit(3, 2), 1.5f);
  EXPECT_EQ(ScaledLogit(3, 1e-40f), kMax);
  EXPECT_EQ(ScaledLogit(-3, 1e-40f), -kMax);
}

void ExpectLowestWithSameZ(float logit, float temperature) {
  const float lowest = LowestWithSameZ(logit, temperature);
  const float z = ScaledLogit(logit, temperature);
  EXPECT_LE(lowest, logit);
  EXPECT_EQ(ScaledLogit(lowest, temperature), z)
      << logit << " / " << temperature;
  if (lowest == -kMax) return;
  EXPECT_LT(ScaledLogit(std::nextafter(lowest, -kMax), temperature), z)
      << logit << " / " << temperature;
}

TEST(LowestWithSameZ, IsTheLast) {
  std::mt19937 rng(1);
  for (int i = 0; i < 20000; ++i) {
    const uint32_t bits[2] = {static_cast<uint32_t>(rng()),
                              static_cast<uint32_t>(rng()) & 0x7fffffffu};
    float values[2];
    std::memcpy(values, bits, sizeof(values));
    if (!std::isfinite(values[0]) || !(values[1] <= 100)) continue;
    ExpectLowestWithSameZ(values[0], values[1]);
  }
  for (const float logit :
       {0.0f, -0.0f, kSmallest, -kSmallest, 1.0f, -1.0f, kMax, -kMax}) {
    for (const float temperature : {0.0f, kSmallest, 0.7f, 1.0f, 100.0f}) {
      ExpectLowestWithSameZ(logit, temperature);
    }
  }
  // All that is cut off at the ends is alike.
  EXPECT_EQ(LowestWithSameZ(-5, kSmallest), -kMax);
}

}  // namespace
}  // namespace tern
