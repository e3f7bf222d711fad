#ifndef MODEL_WEIGHTS_H_
#define MODEL_WEIGHTS_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace tern {

// How a file holds a ternary matrix (docs/formats.md).
enum class TernaryEncoding {
  kI2S,         // GGUF: one stream of 2-bit codes
  kTQ1_0,       // GGUF: blocks of 256, base 3, each with a scale
  kTQ2_0,       // GGUF: blocks of 256, 2-bit codes, each with a scale
  kPackedRows,  // safetensors: a byte has the codes of four rows
  // Master weights of training, which become ternary when they are read.
  kF32,
  kF16,
  kBF16,
};

// A ternary matrix as a file holds it. Borrowed from its model.
struct TernaryTensor {
  std::string name;  // in the file, for messages
  TernaryEncoding encoding;
  absl::Span<const uint8_t> data;
  int n_out;
  int n_in;
  // s_w: the weights are scale * {-1, 0, +1}. Finite. 0 for master weights
  // until MeasureTernary().
  float scale = 0;
  // The encoding's own part of it, which every block of kTQ1_0 and kTQ2_0 must
  // have.
  float block_scale = 0;
  // Master weights become round(weight * quantizer). Set by MeasureTernary().
  float quantizer = 0;
  // Not 0 for q and k whose heads of so many rows are stored first halves
  // first, while the model's order is pair by pair (RopeKind::kNorm): row
  // (head, 2j + s) of the matrix is row (head, s * head_dim / 2 + j) of `data`.
  int unpaired_head_dim = 0;
};

// How a file holds a dense matrix; rows are whole blocks.
enum class DenseEncoding { kF32, kF16, kBF16, kQ8_0, kQ6K, kQ4K };

// "F16", "Q8_0".
absl::string_view DenseEncodingName(DenseEncoding encoding);

// Bytes of `n` elements. REQUIRES: n is a multiple of the block's elements (32
// for kQ8_0, 256 for kQ6K and kQ4K).
int64_t DenseBytes(DenseEncoding encoding, int64_t n);

// A dense matrix as a file holds it. Borrowed from its model.
struct DenseTensor {
  std::string name;
  DenseEncoding encoding;
  absl::Span<const uint8_t> data;
  int n_rows = 0;
  int n_columns = 0;

  int64_t row_bytes() const { return DenseBytes(encoding, n_columns); }
};

// The tensors of one layer. Norms are widened to float32 (they are small).
struct LayerTensors {
  std::vector<float> attn_norm;      // [hidden_size]
  std::vector<float> attn_sub_norm;  // [q_size], empty without sub-norms
  std::vector<float> ffn_norm;       // [hidden_size]
  std::vector<float> ffn_sub_norm;   // [ffn_size], empty without sub-norms
  TernaryTensor q;                   // [q_size, hidden_size]
  TernaryTensor k;                   // [kv_size, hidden_size]
  TernaryTensor v;                   // [kv_size, hidden_size]
  TernaryTensor o;                   // [hidden_size, q_size]
  TernaryTensor gate;                // [ffn_size, hidden_size]
  TernaryTensor up;                  // [ffn_size, hidden_size]
  TernaryTensor down;                // [hidden_size, ffn_size]
};

// Widens `n` values of kF32, kF16 or kBF16 to float32. INVALID_ARGUMENT names
// the tensor when one is not finite, or the encoding is another one.
absl::StatusOr<std::vector<float>> ReadNorm(absl::string_view name,
                                            DenseEncoding encoding,
                                            absl::Span<const uint8_t> data,
                                            int n);

// Sets the scales of a tensor of a GGUF file: `scale` is the encoding's own
// times `factor`, rounded once. INVALID_ARGUMENT when it is not finite. Reads
// no more than it takes to find a block that has weights.
absl::Status ReadStreamScale(float factor, TernaryTensor* tensor);

// Sets `quantizer` and `scale` of master weights, for which it reads all of
// them; other tensors are left alone. With m the mean of |weight| (float64 sums
// of rows, added up row by row, divided, rounded to float32): quantizer =
// 1 / max(m, 1e-5) and scale = 1 / quantizer, in float32. DATA_LOSS when a
// weight is not finite.
absl::Status MeasureTernary(TernaryTensor* tensor);

// Decodes rows [row_begin, row_end) of a measured tensor into codes w + 1,
// row-major [row_end - row_begin, n_in], each 0, 1 or 2. DATA_LOSS names tensor
// and place when the file holds a code that is no weight, INVALID_ARGUMENT when
// its blocks have different scales. Safe to call from several threads.
absl::Status DecodeTernaryRows(const TernaryTensor& tensor, int row_begin,
                               int row_end, uint8_t* codes);

}  // namespace tern

#endif  // MODEL_WEIGHTS_H_
