#ifndef KERNELS_I8MM_H_
#define KERNELS_I8MM_H_

#include <cstddef>

#include "kernels/quantize.h"
#include "kernels/ternary_layout.h"

// Kernels for 64-bit ARM with SDOT, USDOT and USMMLA (FEAT_I8MM), where they
// need fewer instructions than kernels/dotprod.h. Contracts are those of the
// entries of `Kernels` with the same name; the oracle (kernels/ref.h) checks
// them.
//
// The files of this target are compiled for that instruction set, so they share
// no inline function or template with anything else: whichever copy the linker
// kept would run everywhere. What they need of each other has internal linkage.
namespace tern::i8mm {

void TernaryMatmul(const TernaryView& w, const QuantizedTokens& x,
                   int row_begin, int row_end, float* y, size_t y_stride);

}  // namespace tern::i8mm

#endif  // KERNELS_I8MM_H_
