#ifndef MODEL_WEIGHTS_H_
#define MODEL_WEIGHTS_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "model/gguf_reader.h"
#include "model/model_config.h"

namespace tern {

// A ternary matrix as the file holds it. Borrowed from the reader.
struct TernaryTensor {
  const GgufTensor* tensor;
  int n_out;
  int n_in;
  float scale;  // finite
};

// A dense matrix as the file holds it. Borrowed from the reader.
struct DenseTensor {
  const GgufTensor* tensor;  // type kF32 or kF16
  int n_rows;
  int n_columns;
};

// The tensors of one layer. Norms are widened to float32 (they are small).
struct LayerTensors {
  std::vector<float> attn_norm;      // [hidden_size]
  std::vector<float> attn_sub_norm;  // [q_size], empty without sub-norms
  std::vector<float> ffn_norm;       // [hidden_size]
  std::vector<float> ffn_sub_norm;   // [ffn_size], empty without sub-norms
  TernaryTensor q;     // [q_size, hidden_size]
  TernaryTensor k;     // [kv_size, hidden_size]
  TernaryTensor v;     // [kv_size, hidden_size]
  TernaryTensor o;     // [hidden_size, q_size]
  TernaryTensor gate;  // [ffn_size, hidden_size]
  TernaryTensor up;    // [ffn_size, hidden_size]
  TernaryTensor down;  // [hidden_size, ffn_size]
};

// Finds and checks the tensors of layer `layer`: INVALID_ARGUMENT names a
// tensor that is missing, or whose shape, type or scale cannot be.
absl::StatusOr<LayerTensors> FindLayer(const GgufReader& file,
                                       const ModelConfig& config, int layer);

// token_embd.weight [vocab_size, hidden_size].
absl::StatusOr<DenseTensor> FindEmbedding(const GgufReader& file,
                                          const ModelConfig& config);
// The head: output.weight, or token_embd.weight when config.tied_head.
absl::StatusOr<DenseTensor> FindHead(const GgufReader& file,
                                     const ModelConfig& config);
// output_norm.weight [hidden_size].
absl::StatusOr<std::vector<float>> FindOutputNorm(const GgufReader& file,
                                                  const ModelConfig& config);

// Decodes rows [row_begin, row_end) of a ternary tensor into codes w + 1,
// row-major [row_end - row_begin, n_in], each 0, 1 or 2. DATA_LOSS names tensor
// and row when the file holds code 3. Safe to call from several threads.
absl::Status DecodeTernaryRows(const TernaryTensor& tensor, int row_begin,
                               int row_end, uint8_t* codes);

}  // namespace tern

#endif  // MODEL_WEIGHTS_H_
