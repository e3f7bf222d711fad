#ifndef TOOLS_GGUF_METADATA_H_
#define TOOLS_GGUF_METADATA_H_

#include <cstdint>

#include "model/gguf_writer.h"
#include "model/model_config.h"
#include "model/ternary_codec.h"
#include "model/weights.h"

namespace tern {

// Sets general.* and the keys of the architecture, so that ReadModelConfig()
// gives `config` again. `type` is that of the ternary matrices. Activation and
// sub-norms have no keys: they are those of the architecture.
void SetModelKeys(const ModelConfig& config, TernaryFormat type,
                  GgufHeader* header);

// What GGUF files call a format: of a tensor, and of a file in
// general.file_type.
uint32_t GgufTypeOf(TernaryFormat format);
uint32_t GgufFileTypeOf(TernaryFormat format);
uint32_t GgufTypeOf(DenseEncoding encoding);

}  // namespace tern

#endif  // TOOLS_GGUF_METADATA_H_
