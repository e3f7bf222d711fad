#ifndef TOOLS_PRESETS_H_
#define TOOLS_PRESETS_H_

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "model/model_config.h"

namespace tern {

// The shape of a model that people know by a name.
struct Preset {
  std::string name;     // "2b4t"
  std::string summary;  // what has this shape
  ModelConfig config;
};

// Smallest first.
const std::vector<Preset>& Presets();

// Null when there is none of that name.
const Preset* FindPreset(absl::string_view name);

}  // namespace tern

#endif  // TOOLS_PRESETS_H_
