#ifndef KERNELS_QUANTIZE_H_
#define KERNELS_QUANTIZE_H_

#include <cstdint>

namespace tern {

// What quantising one token yields beside its int8 values.
struct QuantizedScale {
  float s;      // 127 / max(absmax, 1e-5), in IEEE float32; 0 if absmax is inf
  int32_t sum;  // sum of the int8 values
};

// A batch of quantised tokens. Borrowed.
//
// q[t][i] = clamp(round_half_even(x[t][i] * s[t]), -127, 127), where the
// product is one float32 multiplication. NaN counts as no magnitude in absmax,
// and a product that is NaN becomes 0.
struct QuantizedTokens {
  const int8_t* q;     // [n_tokens, n], rows 64-byte aligned when n % 64 == 0
  const float* s;      // [n_tokens]
  const int32_t* sum;  // [n_tokens]
  int n_tokens;
  int n;
};

}  // namespace tern

#endif  // KERNELS_QUANTIZE_H_
