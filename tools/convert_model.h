#ifndef TOOLS_CONVERT_MODEL_H_
#define TOOLS_CONVERT_MODEL_H_

#include <string>

#include "absl/status/statusor.h"
#include "tools/convert_options.h"
#include "tools/progress.h"
#include "worker/thread_pool.h"

namespace tern {

// Writes a model to a GGUF file with its ternary matrices in the type asked
// for. The model is a GGUF file, the first part of a split set, or a directory
// of safetensors (see ConvertSafetensors()).
//
// Of a GGUF file metadata are kept, but for general.file_type, which follows,
// and split.*, which goes; other tensors are copied as they are; tensors keep
// their order. Weights are the same, and scales too unless they are rounded.
//
// INVALID_ARGUMENT or DATA_LOSS for a file that is no model, or has weights
// that cannot be; FAILED_PRECONDITION when scales would have to be rounded
// without `allow_rounding`; OUT_OF_RANGE when float16 cannot hold one at all;
// UNIMPLEMENTED for what a GGUF file cannot say; ALREADY_EXISTS, see
// GgufWriter; CANCELLED when `progress` says so. Then there is no output.
absl::StatusOr<ConvertResult> ConvertModel(const std::string& in,
                                           const std::string& out,
                                           const ConvertOptions& options,
                                           ThreadPool* pool,
                                           ProgressFn progress);

}  // namespace tern

#endif  // TOOLS_CONVERT_MODEL_H_
