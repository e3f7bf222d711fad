#ifndef KERNELS_CUDA_STREAM_H_
#define KERNELS_CUDA_STREAM_H_

// cudaStream_t, without CUDA's headers.
struct CUstream_st;

namespace tern::cuda {

using Stream = CUstream_st*;

}  // namespace tern::cuda

#endif  // KERNELS_CUDA_STREAM_H_
