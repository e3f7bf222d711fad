#ifndef MODEL_GGUF_WEIGHTS_H_
#define MODEL_GGUF_WEIGHTS_H_

#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/gguf_reader.h"
#include "model/model_config.h"
#include "model/weights.h"

namespace tern {

// Finds and checks the tensors of layer `layer` of a GGUF file:
// INVALID_ARGUMENT names a tensor that is missing, or whose shape, type or
// scale cannot be; UNIMPLEMENTED a type that is not ternary.
//
// A matrix whose file has a `.scale` tensor beside it gets the product of both
// scales, rounded once. Converters write 1 into the matrix then, so that the
// product is exact.
absl::StatusOr<LayerTensors> FindLayer(const GgufReader& file,
                                       const ModelConfig& config, int layer);

// UNIMPLEMENTED, with the way out, when a tensor of a layer's matrix is not in
// a ternary type that Tern reads.
absl::Status CheckTernaryType(const GgufTensor& tensor);

// token_embd.weight [vocab_size, hidden_size].
absl::StatusOr<DenseTensor> FindEmbedding(const GgufReader& file,
                                          const ModelConfig& config);
// The head: output.weight, or token_embd.weight when config.tied_head.
absl::StatusOr<DenseTensor> FindHead(const GgufReader& file,
                                     const ModelConfig& config);
// output_norm.weight [hidden_size].
absl::StatusOr<std::vector<float>> FindOutputNorm(const GgufReader& file,
                                                  const ModelConfig& config);

}  // namespace tern

#endif  // MODEL_GGUF_WEIGHTS_H_
