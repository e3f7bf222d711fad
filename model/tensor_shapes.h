#ifndef MODEL_TENSOR_SHAPES_H_
#define MODEL_TENSOR_SHAPES_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "model/gguf_reader.h"

namespace tern {

// Sizes that tensors of a model have.
enum class Width { kHidden, kQuery, kKeyValue, kFfn };

// One tensor of a layer, "blk.<layer>.<stem>.weight" in GGUF files. Norms have
// n_out only and are one-dimensional.
struct LayerTensorShape {
  const char* stem;
  bool is_norm;
  bool is_sub_norm;  // which not all architectures have
  Width n_out;
  Width n_in;
};

// The tensors of a layer, sub-norms included.
absl::Span<const LayerTensorShape> LayerTensorShapes();

// Finds a tensor and checks its shape; n_columns is dims[0], n_rows the only
// other dimension, or 0 for one dimension alone. INVALID_ARGUMENT names the
// tensor, its shape and the one it should have.
absl::StatusOr<const GgufTensor*> FindShapedTensor(const GgufReader& file,
                                                   absl::string_view name,
                                                   int64_t n_columns,
                                                   int64_t n_rows);

}  // namespace tern

#endif  // MODEL_TENSOR_SHAPES_H_
