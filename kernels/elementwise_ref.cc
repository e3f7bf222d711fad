#include <cmath>

#include "kernels/canonical_sum.h"
#include "kernels/exp.h"
#include "kernels/ref.h"
#include "util/logging.h"

namespace tern::ref {

void RmsNorm(const float* x, const float* weight, int n, float eps, float* y) {
  CanonicalSum squares;
  for (int i = 0; i < n; ++i) squares.AddProduct(i, x[i], x[i]);
  const float mean = squares.Total() / static_cast<float>(n);
  const float r = 1.0f / std::sqrt(mean + eps);
  for (int i = 0; i < n; ++i) y[i] = (x[i] * r) * weight[i];
}

void RopeRotate(float* x, const float* cos, const float* sin, int head_dim,
                RopePairing pairing) {
  DCHECK(head_dim % 2 == 0);
  const int half = head_dim / 2;
  for (int i = 0; i < half; ++i) {
    const bool neox = pairing == RopePairing::kNeox;
    float& first = neox ? x[i] : x[2 * i];
    float& second = neox ? x[i + half] : x[2 * i + 1];
    const float a = first;
    const float b = second;
    first = std::fma(a, cos[i], -(b * sin[i]));
    second = std::fma(b, cos[i], a * sin[i]);
  }
}

void Relu2Gate(const float* gate, const float* up, int n, float* y) {
  for (int i = 0; i < n; ++i) {
    const float r = gate[i] > 0.0f ? gate[i] : 0.0f;
    y[i] = (r * r) * up[i];
  }
}

void SiluGate(const float* gate, const float* up, int n, float* y) {
  for (int i = 0; i < n; ++i) {
    y[i] = (gate[i] / (1.0f + Exp(-gate[i]))) * up[i];
  }
}

void Add(float* x, const float* y, int n) {
  for (int i = 0; i < n; ++i) x[i] += y[i];
}

void ExpEach(const float* x, int n, float* y) {
  for (int i = 0; i < n; ++i) y[i] = Exp(x[i]);
}

}  // namespace tern::ref
