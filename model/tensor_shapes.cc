#include "model/tensor_shapes.h"

#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace tern {
namespace {

constexpr LayerTensorShape kLayerTensors[] = {
    {"attn_norm", true, false, Width::kHidden, Width::kHidden},
    {"attn_q", false, false, Width::kQuery, Width::kHidden},
    {"attn_k", false, false, Width::kKeyValue, Width::kHidden},
    {"attn_v", false, false, Width::kKeyValue, Width::kHidden},
    {"attn_sub_norm", true, true, Width::kQuery, Width::kQuery},
    {"attn_output", false, false, Width::kHidden, Width::kQuery},
    {"ffn_norm", true, false, Width::kHidden, Width::kHidden},
    {"ffn_gate", false, false, Width::kFfn, Width::kHidden},
    {"ffn_up", false, false, Width::kFfn, Width::kHidden},
    {"ffn_sub_norm", true, true, Width::kFfn, Width::kFfn},
    {"ffn_down", false, false, Width::kHidden, Width::kFfn},
};

}  // namespace

absl::Span<const LayerTensorShape> LayerTensorShapes() { return kLayerTensors; }

absl::StatusOr<const GgufTensor*> FindShapedTensor(const GgufReader& file,
                                                   absl::string_view name,
                                                   int64_t n_columns,
                                                   int64_t n_rows) {
  const GgufTensor* tensor = file.FindTensor(name);
  if (tensor == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("the file has no tensor ", name));
  }
  // A trailing dimension of 1 changes nothing, so rows() is compared.
  const bool right = tensor->columns() == n_columns &&
                     tensor->rows() == (n_rows == 0 ? 1 : n_rows);
  if (!right) {
    return absl::InvalidArgumentError(absl::StrCat(
        "tensor ", name, " has shape [", absl::StrJoin(tensor->dims, ", "),
        "]; by the metadata it should be [", n_columns,
        n_rows == 0 ? "" : absl::StrCat(", ", n_rows), "]"));
  }
  return tensor;
}

}  // namespace tern
