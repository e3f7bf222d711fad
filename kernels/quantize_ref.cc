#include <cmath>

#include "kernels/ref.h"

namespace tern::ref {

QuantizedScale QuantizeToken(const float* x, int n, int8_t* q) {
  float absmax = 0.0f;
  for (int i = 0; i < n; ++i) {
    const float magnitude = std::fabs(x[i]);
    if (magnitude > absmax) absmax = magnitude;
  }
  const float s = 127.0f / (absmax > 1e-5f ? absmax : 1e-5f);
  int32_t sum = 0;
  for (int i = 0; i < n; ++i) {
    const float t = x[i] * s;
    float rounded = std::isnan(t) ? 0.0f : std::nearbyint(t);
    if (rounded > 127.0f) rounded = 127.0f;
    if (rounded < -127.0f) rounded = -127.0f;
    q[i] = static_cast<int8_t>(rounded);
    sum += q[i];
  }
  return {s, sum};
}

}  // namespace tern::ref
