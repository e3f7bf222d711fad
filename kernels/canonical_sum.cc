#include "kernels/canonical_sum.h"

#include <cmath>

namespace tern {

void CanonicalSum::Add(int index, float x) { lanes_[index % 16] += x; }

void CanonicalSum::AddProduct(int index, float x, float y) {
  float& lane = lanes_[index % 16];
  lane = std::fma(x, y, lane);
}

float CanonicalSum::Total() const {
  float t[16];
  for (int j = 0; j < 16; ++j) t[j] = lanes_[j];
  for (int width = 8; width >= 1; width /= 2) {
    for (int j = 0; j < width; ++j) t[j] += t[j + width];
  }
  return t[0];
}

}  // namespace tern
