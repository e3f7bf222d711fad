#ifndef KERNELS_CUDA_NORMALISE_SHAPE_H_
#define KERNELS_CUDA_NORMALISE_SHAPE_H_

#include "kernels/cuda/launch_shape.h"

namespace tern::cuda {

// How NormaliseKernel is launched for tokens of n columns.
simt::LaunchShape NormaliseShape(int n, int n_tokens);

}  // namespace tern::cuda

#endif  // KERNELS_CUDA_NORMALISE_SHAPE_H_
