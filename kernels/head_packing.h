#ifndef KERNELS_HEAD_PACKING_H_
#define KERNELS_HEAD_PACKING_H_

#include <cstdint>

#include "kernels/head.h"
#include "kernels/kernels.h"

namespace tern {

// Quantises and packs one panel of a dense matrix into the form of Int8View, a
// row at a time. Allocates scratch of 5 bytes a column.
//
// panel_index: rows [16 * panel_index, ...), as many as there are.
// packed: HeadPanelBytes(w.n_columns), whatever it held.
// row_scale: [16]; rows beyond the matrix get 0.
//
// Returns the first row with an element that is not finite (packed, as every
// such row, as zeros), or -1.
// REQUIRES: w.n_columns % 4 == 0.
int PackInt8Panel(const Kernels& kernels, const DenseView& w, int panel_index,
                  int8_t* packed, float* row_scale);

}  // namespace tern

#endif  // KERNELS_HEAD_PACKING_H_
