#include "model/tensor_layer.h"

#include "absl/strings/numbers.h"

namespace tern {

bool IsInLayers(absl::string_view name, const StageRange& range) {
  int layer;
  return absl::SimpleAtoi(name.substr(0, name.find('.')), &layer) &&
         layer >= range.layer_begin && layer < range.layer_end;
}

}  // namespace tern
