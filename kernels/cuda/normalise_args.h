#ifndef KERNELS_CUDA_NORMALISE_ARGS_H_
#define KERNELS_CUDA_NORMALISE_ARGS_H_

#include <cstddef>
#include <cstdint>

namespace tern::cuda {

// What a token goes through before it is normalised.
enum class NormaliseInput : int32_t {
  kPlain,      // h = x
  kResidual,   // h = x + y, which x becomes
  kRelu2Gate,  // h = max(x, 0)^2 * y
  kSiluGate,   // h = x / (1 + exp(-x)) * y
};

// Makes the int8 form of each token, as BitLinear and the int8 head read it:
//
//   h as above, float32
//   n = (h * (1 / sqrt(mean(h^2) + eps))) * weight, or h without a weight
//   q, s and sum of n as in kernels/quantize.h
//
// All of it bit for bit as docs/exactness.md, sections 2, 3, 5 and 10. Pointers
// are to device memory; q may not overlap x or y.
struct NormaliseArgs {
  NormaliseInput input = NormaliseInput::kPlain;
  // Elements from a token to the next in x and y: they may lie in the rows of a
  // wider matrix.
  int64_t x_stride = 0;
  int64_t y_stride = 0;
  float* x = nullptr;        // [rows][n]; written by kResidual alone
  const float* y = nullptr;  // [rows][n], unless kPlain
  // [n_tokens]: which row of x and y is a token, each at most once; or null
  // where row t is token t.
  const int32_t* rows = nullptr;
  const float* weight = nullptr;  // [n], or null: no norm
  float eps = 0;
  int n = 0;               // a multiple of 4, at most kNormaliseColumnsMax
  int8_t* q = nullptr;     // [n_tokens, n]
  float* s = nullptr;      // [n_tokens]
  int32_t* sum = nullptr;  // [n_tokens]
  // [n_tokens], or null: 1 where all elements of the normalised token are
  // finite (the quantiser turns NaN into 0, which looks good), else 0.
  int32_t* is_finite = nullptr;
};

// Columns that fit the shared memory of the smallest card (99 KiB, sm_86).
inline constexpr int kNormaliseColumnsMax = 24576;

}  // namespace tern::cuda

#endif  // KERNELS_CUDA_NORMALISE_ARGS_H_
