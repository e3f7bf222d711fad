#include "worker/wanted_logits.h"

#include <algorithm>
#include <cstring>
#include <limits>

namespace tern {
namespace {

// Floats in their order, as consecutive integers.
float FloatAt(int32_t place) {
  const uint32_t bits = place < 0 ? 0x80000000u | ~static_cast<uint32_t>(place)
                                  : static_cast<uint32_t>(place);
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

int32_t PlaceOf(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return static_cast<int32_t>(bits >> 31 != 0 ? ~(bits & 0x7fffffffu) : bits);
}

}  // namespace

float ScaledLogit(float logit, float temperature) {
  if (temperature == 0) return logit;
  // Infinities must not arise: their differences are NaN.
  constexpr float kMax = std::numeric_limits<float>::max();
  return std::min(std::max(logit / temperature, -kMax), kMax);
}

float LowestWithSameZ(float logit, float temperature) {
  const float z = ScaledLogit(logit, temperature);
  int64_t below = int64_t{PlaceOf(std::numeric_limits<float>::lowest())} - 1;
  int64_t found = PlaceOf(logit);
  while (found - below > 1) {
    const int64_t middle = below + (found - below) / 2;
    if (ScaledLogit(FloatAt(static_cast<int32_t>(middle)), temperature) >= z) {
      found = middle;
    } else {
      below = middle;
    }
  }
  return FloatAt(static_cast<int32_t>(found));
}

}  // namespace tern
