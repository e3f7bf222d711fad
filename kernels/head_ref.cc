#include <algorithm>
#include <cmath>
#include <limits>

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

// A byte of column 8 b + j has also that of column 8 b + 4 + j.
int NibbleAt(const uint8_t* bytes, int k) { return *bytes >> (k & 4) & 15; }

int UpperAt(const Int8View& w, int row, int k) {
  const uint8_t* panel =
      w.upper + row / kHeadPanelRows * HeadPanelBytes(w.n_columns);
  return NibbleAt(panel + k / 8 * 64 + row % kHeadPanelRows * 4 + k % 4, k);
}

int LowerAt(const Int8View& w, int row, int k) {
  const uint8_t* group =
      w.lower + row / kHeadGroupRows * HeadGroupBytes(w.n_columns);
  return NibbleAt(group + k / 8 * 16 + row % kHeadGroupRows * 4 + k % 4, k);
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
    for (int t = 0; t < x.n_tokens; ++t) {
      const int8_t* q = x.q + static_cast<size_t>(t) * x.n;
      int32_t sum = 0;
      for (int k = 0; k < w.n_columns; ++k) {
        sum += (16 * UpperAt(w, row, k) + LowerAt(w, row, k) - 128) * q[k];
      }
      logits[t * logits_stride + row] =
          static_cast<float>(sum) / x.s[t] * w.row_scale[row];
    }
  }
}

void HeadInt8Bounds(const Int8View& w, const QuantizedTokens& x,
                    const float* x_norm, int panel_begin, int panel_end,
                    int32_t* upper_sums, float* bounds, size_t stride) {
  DCHECK(x.n == w.n_columns && x.n <= kHeadBoundColumnsMax);
  for (int panel = panel_begin; panel < panel_end; ++panel) {
    for (int t = 0; t < x.n_tokens; ++t) {
      const int8_t* q = x.q + static_cast<size_t>(t) * x.n;
      for (int r = 0; r < kHeadPanelRows; ++r) {
        const int row = panel * kHeadPanelRows + r;
        float& bound = bounds[(t * stride + row) / kHeadGroupRows];
        if (r % kHeadGroupRows == 0) {
          bound = -std::numeric_limits<float>::infinity();
        }
        int32_t sum = 0;
        for (int k = 0; k < w.n_columns; ++k) sum += UpperAt(w, row, k) * q[k];
        upper_sums[t * stride + row] = sum;
        if (row >= w.n_rows) continue;
        // sum l q = sum (l - 7.5) q + 7.5 sum q, where floor(7.5 sum q) + 1
        // makes up for both fractions.
        const int32_t x_sum = x.sum[t];
        const int32_t highest =
            16 * sum - 128 * x_sum +
            static_cast<int32_t>(std::floor(7.5 * x_sum)) + 1 +
            static_cast<int32_t>(w.lower_norm[row] * x_norm[t]);
        bound = std::max(
            bound, static_cast<float>(highest) / x.s[t] * w.row_scale[row]);
      }
    }
  }
}

void HeadInt8Groups(const Int8View& w, const QuantizedTokens& x,
                    const int32_t* groups, int n_groups,
                    const int32_t* upper_sums, float* logits, size_t stride) {
  for (int i = 0; i < n_groups; ++i) {
    const int first = groups[i] * kHeadGroupRows;
    for (int row = first; row < first + kHeadGroupRows; ++row) {
      for (int t = 0; t < x.n_tokens; ++t) {
        const int8_t* q = x.q + static_cast<size_t>(t) * x.n;
        int32_t sum = 0;
        for (int k = 0; k < w.n_columns; ++k) sum += LowerAt(w, row, k) * q[k];
        sum += 16 * upper_sums[t * stride + row] - 128 * x.sum[t];
        logits[t * stride + row] =
            static_cast<float>(sum) / x.s[t] * w.row_scale[row];
      }
    }
  }
}

}  // namespace tern::ref
