#include "model/gguf_source.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_format.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "model/gguf_config.h"
#include "model/gguf_types.h"
#include "model/gguf_weights.h"
#include "model/mapped_file.h"
#include "model/model_file.h"
#include "model/tensor_layer.h"
#include "util/status_macros.h"

namespace tern {
namespace {

class GgufSource : public ModelSource {
 public:
  static absl::StatusOr<std::unique_ptr<ModelSource>> Make(
      std::unique_ptr<GgufReader> file) {
    std::unique_ptr<GgufSource> source(new GgufSource(std::move(file)));
    ASSIGN_OR_RETURN(source->config_,
                     ReadModelConfig(*source->file_, &source->warnings_));
    return std::unique_ptr<ModelSource>(std::move(source));
  }

  uint64_t fingerprint() const override { return file_->fingerprint(); }
  int64_t file_bytes() const override { return file_->file_bytes(); }

  absl::StatusOr<LayerTensors> FindLayer(int layer) const override {
    return tern::FindLayer(*file_, config_, layer);
  }
  absl::StatusOr<DenseTensor> FindEmbedding() const override {
    return tern::FindEmbedding(*file_, config_);
  }
  absl::StatusOr<DenseTensor> FindHead() const override {
    return tern::FindHead(*file_, config_);
  }
  absl::StatusOr<std::vector<float>> FindOutputNorm() const override {
    return tern::FindOutputNorm(*file_, config_);
  }

  absl::StatusOr<std::vector<ModelFile>> OpenFiles() const override {
    const std::vector<std::shared_ptr<const MappedFile>> mapped =
        file_->files();
    if (mapped.empty()) {
      return absl::FailedPreconditionError("a model in memory has no files");
    }
    std::vector<ModelFile> files;
    for (size_t i = 0; i < mapped.size(); ++i) {
      ModelFile file;
      // Parts of a split set find each other by their names.
      file.name = mapped.size() == 1
                      ? "model.gguf"
                      : absl::StrFormat("model-%05d-of-%05d.gguf", i + 1,
                                        mapped.size());
      file.file = mapped[i];
      const absl::Span<const uint8_t> bytes = mapped[i]->bytes();
      for (const GgufTensor& tensor : file_->tensors()) {
        if (tensor.data.empty() || tensor.data.data() < bytes.data() ||
            tensor.data.data() >= bytes.data() + bytes.size()) {
          continue;
        }
        file.parts.push_back({tensor.name, tensor.data.data() - bytes.data(),
                              static_cast<int64_t>(tensor.data.size())});
      }
      std::sort(file.parts.begin(), file.parts.end(),
                [](const ModelFile::Part& a, const ModelFile::Part& b) {
                  return a.offset < b.offset;
                });
      const int64_t header_bytes = file.parts.empty()
                                       ? static_cast<int64_t>(bytes.size())
                                       : file.parts.front().offset;
      file.parts.insert(file.parts.begin(), {"", 0, header_bytes});
      files.push_back(std::move(file));
    }
    return files;
  }

  bool NeedsTensor(absl::string_view name,
                   const StageRange& range) const override {
    if (absl::ConsumePrefix(&name, "blk.")) {
      return IsInLayers(name, range);
    }
    if (name == "token_embd.weight") {
      return range.has_embedding || (range.has_head && config_.tied_head);
    }
    return range.has_head;
  }

  void Release(absl::Span<const uint8_t> data) const override {
    file_->Release(data);
  }

  absl::StatusOr<TokenizerFiles> ReadTokenizerFiles() const override {
    return absl::FailedPreconditionError(
        "a GGUF file has its tokenizer in its metadata, not in files");
  }

  absl::StatusOr<std::unique_ptr<Tokenizer>> LoadTokenizer() const override {
    return Tokenizer::FromGguf(*file_, config_.vocab_size);
  }

  absl::optional<std::string> chat_template() const override {
    const auto text = file_->GetString("tokenizer.chat_template");
    if (!text.ok()) return absl::nullopt;
    return std::string(*text);
  }

  absl::string_view format() const override { return "GGUF"; }

  std::vector<TensorInfo> tensors() const override {
    std::vector<TensorInfo> infos;
    for (const GgufTensor& tensor : file_->tensors()) {
      std::vector<int64_t> shape = tensor.dims;
      std::reverse(shape.begin(), shape.end());
      infos.push_back({tensor.name, GgufTypeName(tensor.type), std::move(shape),
                       static_cast<int64_t>(tensor.data.size())});
    }
    return infos;
  }

  std::vector<std::pair<std::string, std::string>> metadata() const override {
    std::vector<std::pair<std::string, std::string>> pairs;
    for (std::string& key : file_->keys()) {
      std::string value = file_->ValueText(key);
      pairs.push_back({std::move(key), std::move(value)});
    }
    return pairs;
  }

 private:
  explicit GgufSource(std::unique_ptr<GgufReader> file)
      : file_(std::move(file)) {}

  const std::unique_ptr<const GgufReader> file_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<ModelSource>> MakeGgufSource(
    std::unique_ptr<GgufReader> file) {
  return GgufSource::Make(std::move(file));
}

}  // namespace tern
