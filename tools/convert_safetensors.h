#ifndef TOOLS_CONVERT_SAFETENSORS_H_
#define TOOLS_CONVERT_SAFETENSORS_H_

#include <string>

#include "absl/status/statusor.h"
#include "tools/convert_options.h"
#include "tools/progress.h"
#include "worker/thread_pool.h"

namespace tern {

// Writes the model of a directory of safetensors to a GGUF file: the same codes
// and scales, norms widened to float32, embedding and head as they are stored,
// tokenizer.json and chat template as metadata. What is read from the file
// computes the same bits and makes the same tokens of text.
//
// Errors as ConvertModel() has them; UNIMPLEMENTED names what a GGUF file
// cannot say. NOT_FOUND without a tokenizer.json.
absl::StatusOr<ConvertResult> ConvertSafetensors(const std::string& directory,
                                                 const std::string& out,
                                                 const ConvertOptions& options,
                                                 ThreadPool* pool,
                                                 ProgressFn progress);

}  // namespace tern

#endif  // TOOLS_CONVERT_SAFETENSORS_H_
