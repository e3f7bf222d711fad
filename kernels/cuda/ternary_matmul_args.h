#ifndef KERNELS_CUDA_TERNARY_MATMUL_ARGS_H_
#define KERNELS_CUDA_TERNARY_MATMUL_ARGS_H_

#include <cstdint>

#include "kernels/cuda/simt.h"

namespace tern {

// y[t][r] = ((float)(sum_k W[r][k] * q[t][k]) / s[t]) * scale[r], exactly as
// docs/exactness.md, section 4, says: equal to ref::TernaryMatmul bit for bit.
// All pointers are the device's.
struct TernaryMatmulArgs {
  const simt::Words4* tiles;  // [RowTiles(n_out), ColumnTiles(n_in), 32]
  const float* scale;         // [n_out]: the tensor's, for each row
  int n_out;
  int n_in;            // a multiple of 16, below 2^17
  const int8_t* q;     // [n_tokens, n_in], 16-byte aligned
  const float* s;      // [n_tokens]
  const int32_t* sum;  // [n_tokens], of q
  int n_tokens;
  float* y;  // token t, row r at t * y_stride + r
  int64_t y_stride;

  // How blocks divide the work; see TernaryMatmulPlan.
  int column_splits;
  // Where the blocks that divide the columns of an output meet. All zero before
  // a kernel and after it; unused when column_splits is 1.
  int32_t* partial_sums;  // [n_tokens, n_out]
  int32_t* arrivals;      // one for each block of (rows, tokens)
};

// Writes one output, from its sum of codes (w + 1) times activations.
SIMT_DEVICE void StoreTernaryOutput(const TernaryMatmulArgs& args, int token,
                                    int row, int32_t code_sum) {
  const int32_t sum = code_sum - simt::Load(&args.sum[token]);
  const float y =
      simt::Divide(static_cast<float>(sum), simt::Load(&args.s[token])) *
      simt::Load(&args.scale[row]);
  simt::Store(&args.y[token * args.y_stride + row], y);
}

}  // namespace tern

#endif  // KERNELS_CUDA_TERNARY_MATMUL_ARGS_H_
