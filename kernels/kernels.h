#ifndef KERNELS_KERNELS_H_
#define KERNELS_KERNELS_H_

#include <cstddef>
#include <cstdint>

#include "kernels/attention.h"
#include "kernels/head.h"
#include "kernels/isa.h"
#include "kernels/quantize.h"
#include "kernels/ternary_layout.h"

namespace tern {

// How the elements of a head are paired by RoPE.
enum class RopePairing {
  kNeox,  // i with i + head_dim / 2
  kNorm,  // 2i with 2i + 1
};

using TernaryMatmulFunction = void (*)(const TernaryView& w,
                                       const QuantizedTokens& x, int row_begin,
                                       int row_end, float* y, size_t y_stride);

// The arithmetic of one instruction set: pure functions, safe to call from any
// number of threads as long as their outputs do not overlap. No kernel
// allocates, blocks or fails. Every table of this process computes the same
// bits; docs/exactness.md fixes them. Pointers need the alignment of their type
// unless a comment asks for more; in and out never alias unless allowed.
struct Kernels {
  Isa isa;

  // Quantises one token, see kernels/quantize.h.
  //
  // x: float [n].   q: int8 [n].
  QuantizedScale (*quantize_token)(const float* x, int n, int8_t* q);

  // y[t][r] = (float)(sum_k W[r][k] * q[t][k]) / s[t] * w.scale for rows
  // r in [row_begin, row_end) and every token t.
  //
  // y: float, token t starts at y + t * y_stride; element r of a token is row
  // r. REQUIRES: x.n == w.n_in; row_begin % 32 == 0; row_end % 32 == 0 or
  // row_end == w.n_out.
  //
  // One function for each TernaryPacking, null where this instruction set has
  // none; ternary_matmul() below takes that of w.
  // Source: BitNet b1.58 (arXiv:2402.17764), section 2.
  TernaryMatmulFunction ternary_matmul_of[kTernaryPackingCount];

  // y[i] = x[i] * (1 / sqrt(mean(x^2) + eps)) * weight[i]. y may equal x.
  void (*rms_norm)(const float* x, const float* weight, int n, float eps,
                   float* y);

  // Rotates one head in place by the angles of its position.
  //
  // x: float [head_dim].   cos, sin: float [head_dim / 2] (RopeTable).
  // REQUIRES: head_dim % 2 == 0.
  void (*rope_rotate)(float* x, const float* cos, const float* sin,
                      int head_dim, RopePairing pairing);

  // Stores one token's keys and values, rounded to float16, see
  // kernels/attention.h.
  void (*store_kv)(const KvBlockView& block, int slot, const float* k,
                   const float* v);

  // Attends query tokens of one sequence for query heads [head_begin,
  // head_end), see kernels/attention.h.
  void (*attend)(const AttentionArgs& args, int head_begin, int head_end,
                 float* y);

  // y[i] = max(gate[i], 0)^2 * up[i]. y may equal gate or up.
  void (*relu2_gate)(const float* gate, const float* up, int n, float* y);

  // y[i] = gate[i] / (1 + exp(-gate[i])) * up[i]. y may equal gate or up.
  void (*silu_gate)(const float* gate, const float* up, int n, float* y);

  // x[i] += y[i].
  void (*add)(float* x, const float* y, int n);

  // y[i] = Exp(x[i]), see kernels/exp.h. y may equal x.
  void (*exp_each)(const float* x, int n, float* y);

  // Logits of rows [row_begin, row_end) in head mode `stored`, see
  // kernels/head.h.
  void (*head_stored)(const DenseView& w, const float* x, int row_begin,
                      int row_end, float* logits);

  // Logits of rows [row_begin, row_end) in head mode `int8`, for every token,
  // see kernels/head.h.
  void (*head_int8)(const Int8View& w, const QuantizedTokens& x, int row_begin,
                    int row_end, float* logits, size_t logits_stride);

  // What the upper plane alone tells of the panels [panel_begin, panel_end),
  // for every token:
  //
  // upper_sums[t * stride + r] = sum_k h[r][k] * q[t][k], for every row of the
  //   panels, those beyond n_rows included.
  // bounds[(t * stride + r) / 4]: of the group of r, a float that no logit of
  //   its rows exceeds; -infinity for a group beyond n_rows. By row it is
  //   (float)S / s * d with
  //     S = 16 * upper_sum - 128 * sum + floor(7.5 * sum) + 1
  //         + (int32)(lower_norm * x_norm)
  //   where sum, s and x_norm are the token's, see docs/exactness.md.
  //
  // x_norm: [n_tokens], NormAbove() of each token's q.
  // REQUIRES: stride % 16 == 0; n_columns <= kHeadBoundColumnsMax.
  void (*head_int8_bounds)(const Int8View& w, const QuantizedTokens& x,
                           const float* x_norm, int panel_begin, int panel_end,
                           int32_t* upper_sums, float* bounds, size_t stride);

  // The logits of the rows of some groups, for every token: those of head_int8,
  // from the lower plane and the sums of head_int8_bounds.
  //
  // groups: [n_groups], indices of groups.
  // logits: element t * stride + r is row r; has room for whole groups.
  void (*head_int8_groups)(const Int8View& w, const QuantizedTokens& x,
                           const int32_t* groups, int n_groups,
                           const int32_t* upper_sums, float* logits,
                           size_t stride);

  // Widens one row of any DenseType to float32. False when an element is not
  // finite; the row is widened all the same.
  //
  // out: float [w.n_columns].  REQUIRES: 0 <= row < w.n_rows.
  bool (*widen_row)(const DenseView& w, int row, float* out);

  // Quantises one row for head mode `int8`, see Int8View. Returns d; d and q
  // are 0 for a row of zeros or with an element that is not finite.
  //
  // x: float [n].   q: int8 [n].
  float (*quantize_head_row)(const float* x, int n, int8_t* q);

  bool has_packing(TernaryPacking packing) const {
    return ternary_matmul_of[static_cast<int>(packing)] != nullptr;
  }
  // REQUIRES: has_packing(w.packing).
  void ternary_matmul(const TernaryView& w, const QuantizedTokens& x,
                      int row_begin, int row_end, float* y,
                      size_t y_stride) const {
    ternary_matmul_of[static_cast<int>(w.packing)](w, x, row_begin, row_end, y,
                                                   y_stride);
  }
};

// The kernels of one instruction set. REQUIRES: IsaSupported(isa).
const Kernels& KernelsFor(Isa isa);

// The kernels of the fastest supported instruction set.
const Kernels& BestKernels();

// Version of the arithmetic that every table of this room computes: the CPU
// part of the numerics id. It changes whenever a bit of any result changes.
inline constexpr char kCpuNumericsClass[] = "cpu-1";

}  // namespace tern

#endif  // KERNELS_KERNELS_H_
