#ifndef MODEL_GGUF_SOURCE_H_
#define MODEL_GGUF_SOURCE_H_

#include <memory>

#include "absl/status/statusor.h"
#include "model/gguf_reader.h"
#include "model/model_source.h"

namespace tern {

// The model of a GGUF file. INVALID_ARGUMENT and UNIMPLEMENTED as
// ReadModelConfig() says.
absl::StatusOr<std::unique_ptr<ModelSource>> MakeGgufSource(
    std::unique_ptr<GgufReader> file);

}  // namespace tern

#endif  // MODEL_GGUF_SOURCE_H_
