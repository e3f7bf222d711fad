#ifndef KERNELS_LOG_DOUBLE_H_
#define KERNELS_LOG_DOUBLE_H_

namespace tern {

// The natural logarithm of docs/exactness.md, section 6: float64 by our own
// code, the same bits on every machine, within 1e-15 of the true value for x
// below 2^64, absolute or relative. LogDouble(1) is exactly +0.
//
// REQUIRES: x positive and finite.
double LogDouble(double x);

}  // namespace tern

#endif  // KERNELS_LOG_DOUBLE_H_
