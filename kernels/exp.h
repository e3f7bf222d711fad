#ifndef KERNELS_EXP_H_
#define KERNELS_EXP_H_

namespace tern {

// The exponential of docs/exactness.md, section 7: the same bits on every
// machine, below 1 unit in the last place of error. Exp(0) is exactly 1; +0
// where the result would be subnormal; +infinity on overflow; NaN for NaN.
float Exp(float x);

}  // namespace tern

#endif  // KERNELS_EXP_H_
