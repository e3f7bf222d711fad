#include <cuda_runtime.h>

#include "tests/cuda/toolkit.h"

namespace tern {
namespace {

__global__ void AddKernel(float* x, int n, float addend) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) x[i] += addend;
}

}  // namespace

int CudaDeviceCount() {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess ? count : 0;
}

bool AddOnDevice(float* x, int n, float addend) {
  float* device = nullptr;
  if (cudaMalloc(&device, n * sizeof(float)) != cudaSuccess) return false;
  cudaMemcpy(device, x, n * sizeof(float), cudaMemcpyHostToDevice);
  AddKernel<<<(n + 255) / 256, 256>>>(device, n, addend);
  const cudaError_t error =
      cudaMemcpy(x, device, n * sizeof(float), cudaMemcpyDeviceToHost);
  cudaFree(device);
  return error == cudaSuccess;
}

}  // namespace tern
