#ifndef MODEL_GGUF_CONFIG_H_
#define MODEL_GGUF_CONFIG_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "model/gguf_reader.h"
#include "model/model_config.h"

namespace tern {

// Reads the configuration of a GGUF file and checks it against the names,
// shapes and types of its tensors. INVALID_ARGUMENT names the key or tensor,
// what it is and what it should be; UNIMPLEMENTED an architecture that Tern
// does not serve, with those it does, or a model whose matrices are not
// ternary.
//
// warnings: gets a sentence for each thing in the file that is passed over. May
// be null.
absl::StatusOr<ModelConfig> ReadModelConfig(
    const GgufReader& file, std::vector<std::string>* warnings = nullptr);

}  // namespace tern

#endif  // MODEL_GGUF_CONFIG_H_
