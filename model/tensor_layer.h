#ifndef MODEL_TENSOR_LAYER_H_
#define MODEL_TENSOR_LAYER_H_

#include "absl/strings/string_view.h"
#include "model/stage_plan.h"

namespace tern {

// Whether "12.attn_q.weight", a tensor's name from the number of its layer on,
// is one of the layers of `range`. False when there is no number.
bool IsInLayers(absl::string_view name, const StageRange& range);

}  // namespace tern

#endif  // MODEL_TENSOR_LAYER_H_
