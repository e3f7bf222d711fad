#ifndef MODEL_HF_CONFIG_H_
#define MODEL_HF_CONFIG_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "model/model_config.h"

namespace tern {

// How a safetensors model holds its ternary matrices, by its config.json.
enum class HfMatrices {
  kPacked,            // four codes a byte; weights are weight_scale * code
  kPackedReciprocal,  // four codes a byte; weights are code / weight_scale
  kMasters,           // floating-point weights, ternary once they are rounded
};

// What a config.json says.
struct HfConfig {
  ModelConfig model;
  HfMatrices matrices;
};

// Reads the text of a config.json. INVALID_ARGUMENT names the field, what it is
// and what it should be; UNIMPLEMENTED an architecture or a quantisation that
// Tern does not serve, with those it does.
absl::StatusOr<HfConfig> ReadHfConfig(absl::string_view text);

}  // namespace tern

#endif  // MODEL_HF_CONFIG_H_
