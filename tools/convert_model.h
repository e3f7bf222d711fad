#ifndef TOOLS_CONVERT_MODEL_H_
#define TOOLS_CONVERT_MODEL_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "model/ternary_codec.h"
#include "tools/progress.h"
#include "worker/thread_pool.h"

namespace tern {

struct ConvertOptions {
  TernaryFormat type = TernaryFormat::kI2S;
  // Scales that float16 does not have may be rounded to it.
  bool allow_rounding = false;
  // A file of the output's name may be replaced.
  bool overwrite = false;
};

struct ConvertResult {
  int64_t file_bytes = 0;
  int converted = 0;  // matrices that changed their type
  int rounded = 0;    // of them with another scale than before
  // Of the rounded scale that changed most, |new / old - 1|.
  double rounding_max = 0;
};

// Writes the model of a GGUF file (or split set) again with its ternary
// matrices in another type. Metadata are kept, but for general.file_type, which
// follows, and split.*, which goes; other tensors are copied as they are;
// tensors keep their order. Weights are the same, and scales too unless they
// are rounded.
//
// INVALID_ARGUMENT or DATA_LOSS for a file that is no model, or has weights
// that cannot be; FAILED_PRECONDITION when scales would have to be rounded
// without `allow_rounding`; OUT_OF_RANGE when float16 cannot hold one at all;
// UNIMPLEMENTED for a directory; ALREADY_EXISTS, see GgufWriter; CANCELLED when
// `progress` says so. Then there is no output.
absl::StatusOr<ConvertResult> ConvertModel(const std::string& in,
                                           const std::string& out,
                                           const ConvertOptions& options,
                                           ThreadPool* pool,
                                           ProgressFn progress);

}  // namespace tern

#endif  // TOOLS_CONVERT_MODEL_H_
