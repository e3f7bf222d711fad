#ifndef KERNELS_HEAD_BOUNDS_H_
#define KERNELS_HEAD_BOUNDS_H_

#include <cstddef>
#include <cstdint>

#include "kernels/head.h"
#include "kernels/quantize.h"

// What the fast kernels do with the sums of head_int8_bounds and
// head_int8_groups. Loops of known length, which each file's compiler turns
// into its own vector code; internal linkage on purpose, see kernels/avx512.h.
namespace tern {

// Stores the bounds of the four groups of a panel for token t.
//
// sums: [16], of the upper plane.   bounds: [4].
static inline void StoreHeadBounds(const Int8View& w, const QuantizedTokens& x,
                                   float x_norm, int t, int panel,
                                   const int32_t* sums, float* bounds) {
  const int first = panel * kHeadPanelRows;
  // floor(7.5 sum) without floats: right shifts round down.
  const int32_t offset = (15 * x.sum[t] >> 1) + 1 - 128 * x.sum[t];
  const float s = x.s[t];
  const float* const norm = w.lower_norm + first;
  const float* const d = w.row_scale + first;
  float highest[kHeadPanelRows];
  for (int r = 0; r < kHeadPanelRows; ++r) {
    const int32_t sum =
        16 * sums[r] + offset + static_cast<int32_t>(norm[r] * x_norm);
    highest[r] = static_cast<float>(sum) / s * d[r];
  }
  for (int r = w.n_rows - first; r < kHeadPanelRows; ++r) {
    highest[r < 0 ? 0 : r] = -__builtin_inff();
  }
  for (int g = 0; g < kHeadPanelRows / kHeadGroupRows; ++g) {
    const float* const h = highest + kHeadGroupRows * g;
    const float a = h[0] < h[1] ? h[1] : h[0];
    const float b = h[2] < h[3] ? h[3] : h[2];
    bounds[g] = a < b ? b : a;
  }
}

// Stores the logits of the four rows of a group for token t.
//
// lower, upper: [4], sums of both planes.   logits: [4].
static inline void StoreGroupLogits(const Int8View& w, const QuantizedTokens& x,
                                    int t, int group, const int32_t* lower,
                                    const int32_t* upper, float* logits) {
  const float* const d = w.row_scale + group * kHeadGroupRows;
  for (int r = 0; r < kHeadGroupRows; ++r) {
    const int32_t sum = 16 * upper[r] + lower[r] - 128 * x.sum[t];
    logits[r] = static_cast<float>(sum) / x.s[t] * d[r];
  }
}

}  // namespace tern

#endif  // KERNELS_HEAD_BOUNDS_H_
