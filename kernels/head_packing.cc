#include "kernels/head_packing.h"

#include <algorithm>
#include <vector>

#include "util/logging.h"

namespace tern {

int PackInt8Panel(const Kernels& kernels, const DenseView& w, int panel_index,
                  const Int8Panel& panel) {
  DCHECK(panel_index >= 0 && panel_index < HeadPanelCount(w.n_rows));
  std::vector<float> values(w.n_columns);
  std::vector<int8_t> q(w.n_columns);
  int bad_row = -1;
  for (int r = 0; r < kHeadPanelRows; ++r) {
    const int row = panel_index * kHeadPanelRows + r;
    if (row < w.n_rows) {
      const bool finite = kernels.widen_row(w, row, values.data());
      if (!finite && bad_row < 0) bad_row = row;
      panel.row_scale[r] =
          kernels.quantize_head_row(values.data(), w.n_columns, q.data());
    } else {
      std::fill(q.begin(), q.end(), int8_t{0});
      panel.row_scale[r] = 0.0f;
    }
    panel.lower_norm[r] =
        PlaceInt8Row(q.data(), w.n_columns, r, panel.upper, panel.lower);
  }
  return bad_row;
}

}  // namespace tern
