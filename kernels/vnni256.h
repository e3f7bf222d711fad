#ifndef KERNELS_VNNI256_H_
#define KERNELS_VNNI256_H_

#include <cstddef>

#include "kernels/head.h"
#include "kernels/quantize.h"
#include "kernels/ternary_layout.h"

// Kernels with vpdpbusd on 256-bit registers, of which they use 16. Contracts
// are those of the entries of `Kernels` with the same name; the oracle
// (kernels/ref.h) checks them.
//
// TernaryMatmul REQUIRES: w.packing is k2Bit.
//
// One source is compiled twice. As with kernels/avx2.h, its files share no
// inline function or template with anything else.

// VEX encoding, for AVX2 + AVX-VNNI: CPUs with dot products and no AVX-512.
// Tests run it where the CPU has AVX-VNNI, which those with AVX-512 VNNI alone
// have not: there the encoding below tests the same source.
namespace tern::avxvnni {

void TernaryMatmul(const TernaryView& w, const QuantizedTokens& x,
                   int row_begin, int row_end, float* y, size_t y_stride);
void HeadInt8(const Int8View& w, const QuantizedTokens& x, int row_begin,
              int row_end, float* logits, size_t logits_stride);

}  // namespace tern::avxvnni

// EVEX encoding, for AVX-512 VNNI + VL.
namespace tern::avx512vnni256 {

void TernaryMatmul(const TernaryView& w, const QuantizedTokens& x,
                   int row_begin, int row_end, float* y, size_t y_stride);
void HeadInt8(const Int8View& w, const QuantizedTokens& x, int row_begin,
              int row_end, float* logits, size_t logits_stride);

}  // namespace tern::avx512vnni256

#endif  // KERNELS_VNNI256_H_
