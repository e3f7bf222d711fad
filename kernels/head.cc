#include "kernels/head.h"

#include <cmath>
#include <cstring>

#include "kernels/float16.h"
#include "util/logging.h"

namespace tern {
namespace {

float DenseAt(const DenseView& w, int row, int column) {
  const size_t index = static_cast<size_t>(row) * w.n_columns + column;
  const char* at =
      static_cast<const char*>(w.data) + index * DenseTypeBytes(w.type);
  if (w.type == DenseType::kF16) {
    uint16_t half;
    std::memcpy(&half, at, sizeof(half));
    return HalfToFloat(half);
  }
  float value;
  std::memcpy(&value, at, sizeof(value));
  return value;
}

// The largest magnitude of a row, or 0 if an element is not finite.
float RowAbsmax(const DenseView& w, int row) {
  float absmax = 0.0f;
  for (int column = 0; column < w.n_columns; ++column) {
    const float magnitude = std::fabs(DenseAt(w, row, column));
    if (!std::isfinite(magnitude)) return 0.0f;
    if (magnitude > absmax) absmax = magnitude;
  }
  return absmax;
}

int RoundToInt8(float t) {
  if (std::isnan(t)) return 0;
  const float rounded = std::nearbyint(t);
  if (rounded > 127.0f) return 127;
  if (rounded < -127.0f) return -127;
  return static_cast<int>(rounded);
}

}  // namespace

absl::string_view HeadModeName(HeadMode mode) {
  return mode == HeadMode::kStored ? "stored" : "int8";
}

bool ParseHeadMode(absl::string_view name, HeadMode* mode) {
  for (HeadMode candidate : {HeadMode::kStored, HeadMode::kInt8}) {
    if (HeadModeName(candidate) == name) {
      *mode = candidate;
      return true;
    }
  }
  return false;
}

void DenseRow(const DenseView& w, int row, float* out) {
  DCHECK(row >= 0 && row < w.n_rows);
  for (int column = 0; column < w.n_columns; ++column) {
    out[column] = DenseAt(w, row, column);
  }
}

void PackInt8Panel(const DenseView& w, int panel_index, int8_t* packed,
                   float* row_scale, int32_t* row_sum) {
  DCHECK(w.n_columns % 4 == 0);
  DCHECK(panel_index >= 0 && panel_index < HeadPanelCount(w.n_rows));
  std::memset(packed, 0, HeadPanelBytes(w.n_columns));
  for (int r = 0; r < kHeadPanelRows; ++r) {
    row_scale[r] = 0.0f;
    row_sum[r] = 0;
    const int row = panel_index * kHeadPanelRows + r;
    if (row >= w.n_rows) continue;
    const float absmax = RowAbsmax(w, row);
    if (absmax == 0.0f) continue;
    row_scale[r] = absmax / 127.0f;
    const float inverse = 127.0f / absmax;
    for (int column = 0; column < w.n_columns; ++column) {
      const int q = RoundToInt8(DenseAt(w, row, column) * inverse);
      packed[column / 4 * 64 + 4 * r + column % 4] = static_cast<int8_t>(q);
      row_sum[r] += q;
    }
  }
}

}  // namespace tern
