#ifndef KERNELS_FLOAT16_H_
#define KERNELS_FLOAT16_H_

#include <cstdint>

namespace tern {

// The value of an IEEE float16. Exact, subnormals, infinities and NaN included.
float HalfToFloat(uint16_t half);

// The float16 nearest to x, ties to even; overflow gives infinity, NaN a quiet
// NaN.
uint16_t FloatToHalf(float x);

// As FloatToHalf after clamping x to +-65504, NaN to +65504: how keys and
// values are stored (docs/exactness.md, section 8).
uint16_t SaturatingFloatToHalf(float x);

}  // namespace tern

#endif  // KERNELS_FLOAT16_H_
