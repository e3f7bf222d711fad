#ifndef MODEL_MODEL_SOURCE_H_
#define MODEL_MODEL_SOURCE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/optional.h"
#include "absl/types/span.h"
#include "model/model_config.h"
#include "model/model_file.h"
#include "model/stage_plan.h"
#include "model/tokenizer.h"
#include "model/weights.h"

namespace tern {

// A model as it lies on disk, whatever its format: the one way to open one.
// What docs/formats.md says is served comes out the same from every format: the
// same weights in the same order, so that the same model gives the same bits.
//
// Opening reads headers and checks names, shapes and types against the
// configuration; weights stay in the mapped files until they are decoded.
// Immutable and thread-safe. Spans that it gives out live as long as it does.
class ModelSource {
 public:
  // Opens a .gguf file (of a split set the first part), or a directory with
  // config.json, *.safetensors and tokenizer.json. NOT_FOUND when there is no
  // such thing, INVALID_ARGUMENT, UNIMPLEMENTED or DATA_LOSS with a sentence
  // that names file, place and way out when it cannot be served.
  static absl::StatusOr<std::unique_ptr<ModelSource>> Open(
      const std::string& path);

  // The same for bytes in memory, which the caller keeps. For tests, fuzzing.
  static absl::StatusOr<std::unique_ptr<ModelSource>> FromGguf(
      absl::Span<const uint8_t> bytes);
  static absl::StatusOr<std::unique_ptr<ModelSource>> FromSafetensors(
      absl::string_view config_json, absl::Span<const uint8_t> bytes);

  virtual ~ModelSource() = default;

  const ModelConfig& config() const { return config_; }

  // What was passed over while opening, a sentence each.
  const std::vector<std::string>& warnings() const { return warnings_; }

  // Identifies configuration, names, shapes and sizes, not the weights
  // themselves; docs/formats.md says how. A worker and a coordinator that have
  // the same one have the same model in the same format.
  virtual uint64_t fingerprint() const = 0;

  // Bytes of all files with weights.
  virtual int64_t file_bytes() const = 0;

  // The tensors of layer `layer`. INVALID_ARGUMENT or DATA_LOSS names a tensor
  // whose values cannot be. Ternary tensors are still to be measured.
  virtual absl::StatusOr<LayerTensors> FindLayer(int layer) const = 0;
  virtual absl::StatusOr<DenseTensor> FindEmbedding() const = 0;
  // The embedding, when config().tied_head.
  virtual absl::StatusOr<DenseTensor> FindHead() const = 0;
  virtual absl::StatusOr<std::vector<float>> FindOutputNorm() const = 0;

  // Every file that the model consists of, for those who hash or copy it: the
  // ones with weights as they are mapped, texts opened anew. The same model
  // gives the same list wherever it lies. FAILED_PRECONDITION for a model in
  // memory.
  virtual absl::StatusOr<std::vector<ModelFile>> OpenFiles() const = 0;

  // Whether a stage needs the tensor of that name. A tensor that belongs to no
  // layer and is not the embedding belongs to the head.
  virtual bool NeedsTensor(absl::string_view name,
                           const StageRange& range) const = 0;

  // Tells the operating system that the pages of `data`, a part of a tensor,
  // are not needed for now, so that they stop counting as resident.
  virtual void Release(absl::Span<const uint8_t> data) const = 0;

  // Texts of tokenizer.json and, where there is one, tokenizer_config.json.
  struct TokenizerFiles {
    std::string json;
    std::string config_json;
  };
  // NOT_FOUND when they are missing; FAILED_PRECONDITION for a GGUF file, which
  // has its tokenizer in its metadata.
  virtual absl::StatusOr<TokenizerFiles> ReadTokenizerFiles() const = 0;

  // Reads the tokenizer, which keeps no view of this.
  virtual absl::StatusOr<std::unique_ptr<Tokenizer>> LoadTokenizer() const = 0;

  // The chat template that comes with the model, when there is one.
  virtual absl::optional<std::string> chat_template() const = 0;

  // For people who look into a model.
  struct TensorInfo {
    std::string name;
    std::string type;            // by the format's name for it
    std::vector<int64_t> shape;  // rows first
    int64_t bytes;
  };
  virtual absl::string_view format() const = 0;  // "GGUF", "safetensors"
  virtual std::vector<TensorInfo> tensors() const = 0;
  // Keys and values as text, in the order of the file.
  virtual std::vector<std::pair<std::string, std::string>> metadata() const = 0;

 protected:
  ModelSource() = default;

  ModelConfig config_;
  std::vector<std::string> warnings_;
};

// What a model is called after its path: the last part of it, without ".gguf"
// and the number of a part of a split set. "/models/bitnet-2b.gguf" and
// "/models/bitnet-2b/" are both "bitnet-2b".
std::string ModelNameOf(absl::string_view path);

}  // namespace tern

#endif  // MODEL_MODEL_SOURCE_H_
