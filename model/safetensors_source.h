#ifndef MODEL_SAFETENSORS_SOURCE_H_
#define MODEL_SAFETENSORS_SOURCE_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "model/model_source.h"
#include "model/safetensors_reader.h"

namespace tern {

// Opens a directory with config.json, *.safetensors and, when there are several
// files, model.safetensors.index.json. Errors as ModelSource::Open() says.
absl::StatusOr<std::unique_ptr<ModelSource>> OpenSafetensorsSource(
    const std::string& directory);

// The model of a configuration and the files with its tensors.
//
// names: of the files in `directory`.
// directory: where tokenizer files lie; empty for a model in memory.
absl::StatusOr<std::unique_ptr<ModelSource>> MakeSafetensorsSource(
    absl::string_view config_json,
    std::vector<std::unique_ptr<SafetensorsReader>> files,
    std::vector<std::string> names, const std::string& directory);

}  // namespace tern

#endif  // MODEL_SAFETENSORS_SOURCE_H_
