#ifndef KERNELS_CUDA_HEAD_DISPATCH_H_
#define KERNELS_CUDA_HEAD_DISPATCH_H_

#include "kernels/cuda/head_args.h"
#include "kernels/cuda/head_gemv_kernel.h"
#include "kernels/cuda/head_mma_kernel.h"

namespace tern::cuda {

// Calls run(kernel, shape), `kernel` being an object of the type that computes
// the head for so many tokens fastest: all compute the same integers.
template <typename Fn>
auto WithHeadKernel(const HeadArgs& args, Fn run) {
  if (args.n_tokens == 1) {
    return run(HeadGemvKernel<1>(), HeadGemvKernel<1>::Shape(args));
  }
  if (args.n_tokens == 2) {
    return run(HeadGemvKernel<2>(), HeadGemvKernel<2>::Shape(args));
  }
  if (args.n_tokens <= HeadMmaKernel<1>::kTokens) {
    return run(HeadMmaKernel<1>(), HeadMmaKernel<1>::Shape(args));
  }
  if (args.n_tokens <= HeadMmaKernel<4>::kTokens) {
    return run(HeadMmaKernel<4>(), HeadMmaKernel<4>::Shape(args));
  }
  return run(HeadMmaKernel<8>(), HeadMmaKernel<8>::Shape(args));
}

}  // namespace tern::cuda

#endif  // KERNELS_CUDA_HEAD_DISPATCH_H_
