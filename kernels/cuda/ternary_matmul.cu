#include <cuda_runtime.h>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/ternary_gemv_kernel.h"
#include "kernels/cuda/ternary_matmul.h"
#include "kernels/cuda/ternary_mma_kernel.h"
#include "kernels/cuda/ternary_skinny_kernel.h"
#include "kernels/cuda/ternary_wgmma_kernel.h"

namespace tern {
namespace {

cudaError_t Launch(const TernaryMatmulPlan& plan, const TernaryMatmulArgs& args,
                   cudaStream_t stream) {
  switch (plan.kernel) {
    case TernaryKernel::kGemv1:
      return simt::Launch<TernaryGemvKernel<1>>(plan.shape, args, stream);
    case TernaryKernel::kGemv2:
      return simt::Launch<TernaryGemvKernel<2>>(plan.shape, args, stream);
    case TernaryKernel::kSkinny8:
      return simt::Launch<TernarySkinny8>(plan.shape, args, stream);
    case TernaryKernel::kSkinny16:
      return simt::Launch<TernarySkinny16>(plan.shape, args, stream);
    case TernaryKernel::kMma8:
      return simt::Launch<TernaryMma8>(plan.shape, args, stream);
    case TernaryKernel::kMma16:
      return simt::Launch<TernaryMma16>(plan.shape, args, stream);
    case TernaryKernel::kMma32:
      return simt::Launch<TernaryMma32>(plan.shape, args, stream);
    case TernaryKernel::kMma64:
      return simt::Launch<TernaryMma64>(plan.shape, args, stream);
    case TernaryKernel::kMma128:
      return simt::Launch<TernaryMma128>(plan.shape, args, stream);
    case TernaryKernel::kWgmma128:
      return simt::Launch<TernaryWgmma128>(plan.shape, args, stream);
  }
  return cudaErrorInvalidValue;
}

cudaError_t LaunchOverlapped(const TernaryMatmulPlan& plan,
                             const TernaryMatmulArgs& args,
                             cudaStream_t stream) {
  switch (plan.kernel) {
    case TernaryKernel::kGemv1:
      return simt::LaunchOverlapped<TernaryGemvKernel<1>>(plan.shape, args,
                                                          stream);
    case TernaryKernel::kGemv2:
      return simt::LaunchOverlapped<TernaryGemvKernel<2>>(plan.shape, args,
                                                          stream);
    case TernaryKernel::kSkinny8:
      return simt::LaunchOverlapped<TernarySkinny8>(plan.shape, args, stream);
    case TernaryKernel::kSkinny16:
      return simt::LaunchOverlapped<TernarySkinny16>(plan.shape, args, stream);
    default:
      return Launch(plan, args, stream);
  }
}

}  // namespace

absl::Status PrepareTernaryMatmul() {
  int device = 0;
  int shared_bytes = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) {
    error = cudaDeviceGetAttribute(
        &shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  }
  // Rows of any length that the device has room for.
  if (error == cudaSuccess) {
    error = simt::AllowShared<TernaryGemvKernel<1>>(shared_bytes);
  }
  if (error == cudaSuccess) {
    error = simt::AllowShared<TernaryGemvKernel<2>>(shared_bytes);
  }
  if (error == cudaSuccess &&
      TernaryMma128::Block::kSharedBytes <= shared_bytes) {
    error =
        simt::AllowShared<TernaryMma128>(TernaryMma128::Block::kSharedBytes);
  }
  return CudaStatus(error, "shared memory of the ternary kernels");
}

absl::Status LaunchTernaryMatmul(const TernaryMatmulPlan& plan,
                                 const TernaryMatmulArgs& args,
                                 CudaStream stream) {
  return CudaStatus(Launch(plan, args, static_cast<cudaStream_t>(stream)),
                    TernaryKernelName(plan.kernel));
}

absl::Status LaunchTernaryMatmulOverlapped(const TernaryMatmulPlan& plan,
                                           const TernaryMatmulArgs& args,
                                           CudaStream stream) {
  return CudaStatus(
      LaunchOverlapped(plan, args, static_cast<cudaStream_t>(stream)),
      TernaryKernelName(plan.kernel));
}

}  // namespace tern
