#ifndef KERNELS_AVX512_H_
#define KERNELS_AVX512_H_

#include <cstddef>
#include <cstdint>

#include "kernels/attention.h"
#include "kernels/head.h"
#include "kernels/kernels.h"
#include "kernels/quantize.h"
#include "kernels/ternary_layout.h"

// Kernels for AVX-512 F/BW/VL/DQ + VNNI, where it is faster than AVX2.
// Contracts are those of the entries of `Kernels` with the same name; the
// oracle (kernels/ref.h) checks them.
//
// The files of this target are compiled for that instruction set, so they share
// no inline function or template with anything else: whichever copy the linker
// kept would run everywhere. What they need of each other has internal linkage.
namespace tern::avx512 {

QuantizedScale QuantizeToken(const float* x, int n, int8_t* q);
void TernaryMatmul(const TernaryView& w, const QuantizedTokens& x,
                   int row_begin, int row_end, float* y, size_t y_stride);
void Attend(const AttentionArgs& args, int head_begin, int head_end, float* y);
void SiluGate(const float* gate, const float* up, int n, float* y);
void ExpEach(const float* x, int n, float* y);
void HeadStored(const DenseView& w, const float* x, int row_begin, int row_end,
                float* logits);
void HeadInt8(const Int8View& w, const QuantizedTokens& x, int row_begin,
              int row_end, float* logits, size_t logits_stride);
void HeadInt8Bounds(const Int8View& w, const QuantizedTokens& x,
                    const float* x_norm, int panel_begin, int panel_end,
                    int32_t* upper_sums, float* bounds, size_t stride);

}  // namespace tern::avx512

#endif  // KERNELS_AVX512_H_
