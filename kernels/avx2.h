#ifndef KERNELS_AVX2_H_
#define KERNELS_AVX2_H_

#include <cstddef>
#include <cstdint>

#include "kernels/attention.h"
#include "kernels/head.h"
#include "kernels/kernels.h"
#include "kernels/quantize.h"
#include "kernels/ternary_layout.h"

// Kernels for AVX2 + FMA + F16C. Contracts are those of the entries of
// `Kernels` with the same name; the oracle (kernels/ref.h) checks them.
//
// The files of this target are compiled for that instruction set, so they share
// no inline function or template with anything else: whichever copy the linker
// kept would run everywhere. What they need of each other has internal linkage.
namespace tern::avx2 {

QuantizedScale QuantizeToken(const float* x, int n, int8_t* q);
// REQUIRES: w.packing is k2Bit.
void TernaryMatmul(const TernaryView& w, const QuantizedTokens& x,
                   int row_begin, int row_end, float* y, size_t y_stride);
// REQUIRES: w.packing is kTl2.
void TernaryMatmulTl2(const TernaryView& w, const QuantizedTokens& x,
                      int row_begin, int row_end, float* y, size_t y_stride);
void RmsNorm(const float* x, const float* weight, int n, float eps, float* y);
void RopeRotate(float* x, const float* cos, const float* sin, int head_dim,
                RopePairing pairing);
void StoreKv(const KvBlockView& block, int slot, const float* k,
             const float* v);
void Attend(const AttentionArgs& args, int head_begin, int head_end, float* y);
void Relu2Gate(const float* gate, const float* up, int n, float* y);
void SiluGate(const float* gate, const float* up, int n, float* y);
void Add(float* x, const float* y, int n);
void ExpEach(const float* x, int n, float* y);
void HeadStored(const DenseView& w, const float* x, int row_begin, int row_end,
                float* logits);
void HeadInt8(const Int8View& w, const QuantizedTokens& x, int row_begin,
              int row_end, float* logits, size_t logits_stride);
void HeadInt8Bounds(const Int8View& w, const QuantizedTokens& x,
                    const float* x_norm, int panel_begin, int panel_end,
                    int32_t* upper_sums, float* bounds, size_t stride);
void HeadInt8Groups(const Int8View& w, const QuantizedTokens& x,
                    const int32_t* groups, int n_groups,
                    const int32_t* upper_sums, float* logits, size_t stride);
bool WidenRow(const DenseView& w, int row, float* out);
float QuantizeHeadRow(const float* x, int n, int8_t* q);

}  // namespace tern::avx2

#endif  // KERNELS_AVX2_H_
