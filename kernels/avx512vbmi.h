#ifndef KERNELS_AVX512VBMI_H_
#define KERNELS_AVX512VBMI_H_

#include <cstddef>

#include "kernels/quantize.h"
#include "kernels/ternary_layout.h"

// Kernels for AVX-512 VBMI and VBMI2 beside what kernels/avx512.h needs; see
// there for the rules.
namespace tern::avx512vbmi {

// The entry ternary_matmul of `Kernels`. REQUIRES: w.packing is kBase3.
void TernaryMatmulBase3(const TernaryView& w, const QuantizedTokens& x,
                        int row_begin, int row_end, float* y, size_t y_stride);

}  // namespace tern::avx512vbmi

#endif  // KERNELS_AVX512VBMI_H_
