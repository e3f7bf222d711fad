#ifndef KERNELS_HEAD_PACKING_H_
#define KERNELS_HEAD_PACKING_H_

#include <cstdint>

#include "kernels/head.h"
#include "kernels/kernels.h"

namespace tern {

// One panel of an Int8View that is being made. Borrowed.
struct Int8Panel {
  uint8_t* upper;     // HeadPanelBytes(n_columns)
  uint8_t* lower;     // HeadPanelBytes(n_columns)
  float* row_scale;   // [16]
  float* lower_norm;  // [16]
};

// Quantises and packs one panel of a dense matrix into the form of Int8View, a
// row at a time. Allocates scratch of 5 bytes a column.
//
// panel_index: rows [16 * panel_index, ...), as many as there are.
// panel: where to, see Int8View; whatever it held. Rows beyond the matrix get
//        a scale of 0.
//
// Returns the first row with an element that is not finite (packed, as every
// such row, as zeros), or -1.
// REQUIRES: w.n_columns % 8 == 0.
int PackInt8Panel(const Kernels& kernels, const DenseView& w, int panel_index,
                  const Int8Panel& panel);

}  // namespace tern

#endif  // KERNELS_HEAD_PACKING_H_
