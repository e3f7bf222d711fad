#ifndef TOOLS_RANDOM_MODEL_H_
#define TOOLS_RANDOM_MODEL_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "model/model_config.h"
#include "model/ternary_codec.h"
#include "model/weights.h"
#include "tools/progress.h"
#include "worker/thread_pool.h"

namespace tern {

struct RandomModelOptions {
  // Shape of the model, as from a preset. Its name goes to general.name.
  ModelConfig config;
  TernaryFormat type = TernaryFormat::kI2S;
  // Of embedding and head: kF32, kF16, kBF16 or kQ8_0.
  DenseEncoding dense = DenseEncoding::kF16;
  uint64_t seed = 1;
  // A file of the output's name may be replaced.
  bool overwrite = false;
};

// Writes a model of random weights to a new GGUF file and returns its size.
//
// Scales are such that activations stay near unit size through all layers and
// logits have a standard deviation of about 3. One set of options gives one
// file, byte for byte, on every machine; one seed and shape give one set of
// ternary matrices and norms whatever the types, and of embeddings up to the
// rounding of theirs. The scales of matrices are float16 numbers.
//
// INVALID_ARGUMENT for shapes that cannot be or do not fit a type; what
// GgufWriter says; CANCELLED when `progress` says so, without an output then.
absl::StatusOr<int64_t> WriteRandomModel(const std::string& path,
                                         const RandomModelOptions& options,
                                         ThreadPool* pool, ProgressFn progress);

}  // namespace tern

#endif  // TOOLS_RANDOM_MODEL_H_
