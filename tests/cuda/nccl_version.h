#ifndef TESTS_CUDA_NCCL_VERSION_H_
#define TESTS_CUDA_NCCL_VERSION_H_

namespace tern {

// Version of the NCCL library that was linked, as its header writes it
// (2.28.3 is 22803); 0 when NCCL reports an error.
int LinkedNcclVersion();

// Version of the header that was compiled against.
int CompiledNcclVersion();

}  // namespace tern

#endif  // TESTS_CUDA_NCCL_VERSION_H_
