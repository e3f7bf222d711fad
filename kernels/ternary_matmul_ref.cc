#include "kernels/ref.h"
#include "util/logging.h"

namespace tern::ref {

void TernaryMatmul(const TernaryView& w, const QuantizedTokens& x,
                   int row_begin, int row_end, float* y, size_t y_stride) {
  DCHECK(x.n == w.n_in);
  DCHECK(row_begin % kPanelRows == 0);
  DCHECK(row_end % kPanelRows == 0 || row_end == w.n_out);
  for (int row = row_begin; row < row_end; ++row) {
    for (int t = 0; t < x.n_tokens; ++t) {
      const int8_t* q = x.q + static_cast<size_t>(t) * x.n;
      int32_t sum = 0;
      for (int k = 0; k < w.n_in; ++k) sum += TernaryWeightAt(w, row, k) * q[k];
      y[t * y_stride + row] = static_cast<float>(sum) / x.s[t] * w.scale;
    }
  }
}

}  // namespace tern::ref
