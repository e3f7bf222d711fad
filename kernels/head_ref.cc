#include <algorithm>
#include <cmath>

#include "kernels/canonical_sum.h"
#include "kernels/head.h"
#include "kernels/ref.h"
#include "util/logging.h"

namespace tern::ref {
namespace {

// Whole blocks of any type.
constexpr int kStripColumns = 256;

int8_t RoundToInt8(float t) {
  if (std::isnan(t)) return 0;
  const float rounded = std::nearbyint(t);
  return static_cast<int8_t>(std::clamp(rounded, -127.0f, 127.0f));
}

}  // namespace

bool WidenRow(const DenseView& w, int row, float* out) {
  DenseRow(w, row, out);
  return std::all_of(out, out + w.n_columns,
                     [](float value) { return std::isfinite(value); });
}

float QuantizeHeadRow(const float* x, int n, int8_t* q) {
  float absmax = 0.0f;
  for (int k = 0; k < n; ++k) {
    const float magnitude = std::fabs(x[k]);
    if (!std::isfinite(magnitude)) {
      absmax = 0.0f;
      break;
    }
    absmax = std::max(absmax, magnitude);
  }
  if (absmax == 0.0f) {
    std::fill(q, q + n, int8_t{0});
    return 0.0f;
  }
  const float inverse = 127.0f / absmax;
  for (int k = 0; k < n; ++k) q[k] = RoundToInt8(x[k] * inverse);
  return absmax / 127.0f;
}

void HeadStored(const DenseView& w, const float* x, int row_begin, int row_end,
                float* logits) {
  for (int row = row_begin; row < row_end; ++row) {
    CanonicalSum sum;
    for (int begin = 0; begin < w.n_columns; begin += kStripColumns) {
      const int end = std::min(begin + kStripColumns, w.n_columns);
      float strip[kStripColumns];
      DenseColumns(w, row, begin, end, strip);
      for (int k = begin; k < end; ++k) {
        sum.AddProduct(k, x[k], strip[k - begin]);
      }
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
