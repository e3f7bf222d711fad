#include <cstring>

#include "kernels/canonical_sum.h"
#include "kernels/float16.h"
#include "kernels/ref.h"
#include "util/logging.h"

namespace tern::ref {

void HeadStored(const DenseView& w, const float* x, int row_begin, int row_end,
                float* logits) {
  const char* data = static_cast<const char*>(w.data);
  const size_t row_bytes =
      static_cast<size_t>(w.n_columns) * DenseTypeBytes(w.type);
  for (int row = row_begin; row < row_end; ++row) {
    CanonicalSum sum;
    for (int k = 0; k < w.n_columns; ++k) {
      const char* at = data + row * row_bytes + k * DenseTypeBytes(w.type);
      float weight;
      if (w.type == DenseType::kF16) {
        uint16_t half;
        std::memcpy(&half, at, sizeof(half));
        weight = HalfToFloat(half);
      } else {
        std::memcpy(&weight, at, sizeof(weight));
      }
      sum.AddProduct(k, x[k], weight);
    }
    logits[row] = sum.Total();
  }
}

void HeadInt8(const Int8View& w, const QuantizedTokens& x, int row_begin,
              int row_end, float* logits, size_t logits_stride) {
  DCHECK(x.n == w.n_columns);
  for (int row = row_begin; row < row_end; ++row) {
    const int8_t* panel =
        w.packed + row / kHeadPanelRows * HeadPanelBytes(w.n_columns);
    const int r = row % kHeadPanelRows;
    for (int t = 0; t < x.n_tokens; ++t) {
      const int8_t* q = x.q + static_cast<size_t>(t) * x.n;
      int32_t sum = 0;
      for (int k = 0; k < w.n_columns; ++k) {
        sum += panel[k / 4 * 64 + 4 * r + k % 4] * q[k];
      }
      logits[t * logits_stride + row] =
          static_cast<float>(sum) / x.s[t] * w.row_scale[row];
    }
  }
}

}  // namespace tern::ref
