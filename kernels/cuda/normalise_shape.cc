#include "kernels/cuda/normalise_shape.h"

#include <algorithm>

#include "kernels/cuda/normalise_args.h"
#include "kernels/cuda/normalise_kernel.h"
#include "util/logging.h"

namespace tern::cuda {

simt::LaunchShape NormaliseShape(int n, int n_tokens) {
  CHECK(n > 0 && n % 4 == 0 && n <= kNormaliseColumnsMax);
  simt::LaunchShape shape;
  shape.grid_x = n_tokens;
  // A thread takes four columns at a time.
  const int needed = (n / 4 + simt::kWarpSize - 1) / simt::kWarpSize;
  shape.threads = std::min(NormaliseKernel::kThreads, needed * simt::kWarpSize);
  shape.shared_bytes = NormaliseKernel::SharedBytes(n);
  return shape;
}

}  // namespace tern::cuda
