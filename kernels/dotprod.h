#ifndef KERNELS_DOTPROD_H_
#define KERNELS_DOTPROD_H_

#include <cstddef>
#include <cstdint>

#include "kernels/head.h"
#include "kernels/quantize.h"
#include "kernels/ternary_layout.h"

// Kernels for 64-bit ARM with SDOT (FEAT_DotProd), where they need fewer
// instructions than kernels/neon.h. Contracts are those of the entries of
// `Kernels` with the same name; the oracle (kernels/ref.h) checks them.
//
// The files of this target are compiled for that instruction set, so they share
// no inline function or template with anything else: whichever copy the linker
// kept would run everywhere. What they need of each other has internal linkage.
namespace tern::dotprod {

void TernaryMatmul(const TernaryView& w, const QuantizedTokens& x,
                   int row_begin, int row_end, float* y, size_t y_stride);
void HeadInt8(const Int8View& w, const QuantizedTokens& x, int row_begin,
              int row_end, float* logits, size_t logits_stride);
void HeadInt8Bounds(const Int8View& w, const QuantizedTokens& x,
                    const float* x_norm, int panel_begin, int panel_end,
                    int32_t* upper_sums, float* bounds, size_t stride);
void HeadInt8Groups(const Int8View& w, const QuantizedTokens& x,
                    const int32_t* groups, int n_groups,
                    const int32_t* upper_sums, float* logits, size_t stride);

}  // namespace tern::dotprod

#endif  // KERNELS_DOTPROD_H_
