#ifndef KERNELS_CUDA_LAUNCH_H_
#define KERNELS_CUDA_LAUNCH_H_

// Calls of a kernel of simt.h on the device. For .cu files only, in which nvcc
// includes CUDA's runtime of itself.

#include "kernels/cuda/launch_shape.h"
#include "kernels/cuda/simt.h"

namespace tern::simt {

template <class Kernel>
__global__ void __launch_bounds__(Kernel::kThreads, Kernel::kBlocksPerSm)
    KernelEntry(const __grid_constant__ typename Kernel::Args args) {
  Kernel::Run(args);
}

// Lets blocks of the kernel have up to `shared_bytes` of dynamic shared memory
// on the current device; needed once beyond 48 KiB, and not while a graph is
// captured.
template <class Kernel>
cudaError_t AllowShared(int shared_bytes) {
  return cudaFuncSetAttribute(KernelEntry<Kernel>,
                              cudaFuncAttributeMaxDynamicSharedMemorySize,
                              shared_bytes);
}

// Enqueues the kernel on `stream`. Never blocks or allocates. Returns errors of
// the call itself; those of the kernel appear at a later synchronisation.
template <class Kernel>
cudaError_t Launch(const LaunchShape& shape, const typename Kernel::Args& args,
                   cudaStream_t stream) {
  KernelEntry<Kernel><<<dim3(shape.grid_x, shape.grid_y, shape.grid_z),
                        shape.threads, shape.shared_bytes, stream>>>(args);
  return cudaGetLastError();
}

// The same, but the kernel may begin while the one before it in the stream
// still runs. REQUIRES: it calls WaitForPreviousKernels(), see simt.h.
template <class Kernel>
cudaError_t LaunchOverlapped(const LaunchShape& shape,
                             const typename Kernel::Args& args,
                             cudaStream_t stream) {
  cudaLaunchAttribute overlap = {};
  overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  overlap.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(shape.grid_x, shape.grid_y, shape.grid_z);
  config.blockDim = dim3(shape.threads);
  config.dynamicSmemBytes = shape.shared_bytes;
  config.stream = stream;
  config.attrs = &overlap;
  config.numAttrs = 1;
  return cudaLaunchKernelEx(&config, KernelEntry<Kernel>, args);
}

}  // namespace tern::simt

#endif  // KERNELS_CUDA_LAUNCH_H_
