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

// One output, from its sum of codes (w + 1) times activations.
SIMT_DEVICE float TernaryOutput(int32_t code_sum, int32_t token_sum, float s,
                                float scale) {
  return simt::Divide(static_cast<float>(code_sum - token_sum), s) * scale;
}

// Writes one output.
SIMT_DEVICE void StoreTernaryOutput(const TernaryMatmulArgs& args, int token,
                                    int row, int32_t code_sum) {
  simt::Store(
      &args.y[token * args.y_stride + row],
      TernaryOutput(code_sum, simt::Load(&args.sum[token]),
                    simt::Load(&args.s[token]), simt::Load(&args.scale[row])));
}

// What outputs need beside their sums, for all tokens and up to kRows rows of a
// block, in its shared memory: fetched together with weights, where its latency
// costs nothing.
template <int kTokens, int kRows>
class SharedTernaryScales {
 public:
  static constexpr int kBytes = 4 * (2 * kTokens + kRows);

  // shared: kBytes, aligned to 4.
  SIMT_DEVICE explicit SharedTernaryScales(int32_t* shared)
      : sum_(shared),
        s_(reinterpret_cast<float*>(shared + kTokens)),
        scale_(s_ + kTokens) {}

  // Of rows first_row .. first_row + n_rows - 1. Seen after a barrier.
  SIMT_DEVICE void Fetch(const TernaryMatmulArgs& args, int first_row,
                         int n_rows) const {
    for (int i = simt::ThreadIndex(); i < n_rows; i += simt::ThreadCount()) {
      if (first_row + i < args.n_out) {
        simt::StoreShared(&scale_[i], simt::Load(&args.scale[first_row + i]));
      }
    }
    const int token = simt::ThreadIndex();
    if (token < kTokens && token < args.n_tokens) {
      simt::StoreShared(&sum_[token], simt::Load(&args.sum[token]));
      simt::StoreShared(&s_[token], simt::Load(&args.s[token]));
    }
  }

  // Writes the output of a token and of row first_row + row.
  SIMT_DEVICE void Store(const TernaryMatmulArgs& args, int token,
                         int first_row, int row, int32_t code_sum) const {
    simt::Store(&args.y[token * args.y_stride + first_row + row],
                TernaryOutput(code_sum, simt::LoadShared(&sum_[token]),
                              simt::LoadShared(&s_[token]),
                              simt::LoadShared(&scale_[row])));
  }

 private:
  int32_t* sum_;
  float* s_;
  float* scale_;
};

}  // namespace tern

#endif  // KERNELS_CUDA_TERNARY_MATMUL_ARGS_H_
