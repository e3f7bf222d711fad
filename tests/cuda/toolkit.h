#ifndef TESTS_CUDA_TOOLKIT_H_
#define TESTS_CUDA_TOOLKIT_H_

namespace tern {

// CUDA devices of this machine; 0 where there is no driver.
int CudaDeviceCount();

// Adds `addend` to x[0..n) on the first device. False when CUDA reports an
// error.
bool AddOnDevice(float* x, int n, float addend);

}  // namespace tern

#endif  // TESTS_CUDA_TOOLKIT_H_
