#include "model/safetensors_source.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <set>
#include <system_error>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "model/hf_config.h"
#include "model/mapped_file.h"
#include "model/model_file.h"
#include "model/tensor_layer.h"
#include "nlohmann/json.hpp"
#include "util/crc32c.h"
#include "util/logging.h"
#include "util/status_macros.h"

namespace tern {
namespace {

using Json = nlohmann::json;

constexpr char kIndexName[] = "model.safetensors.index.json";
constexpr size_t kConfigBytesMax = 1 << 20;
constexpr size_t kIndexBytesMax = 4 << 20;
constexpr size_t kTokenizerBytesMax = 64 << 20;
constexpr size_t kFilesMax = 1024;

constexpr char kEmbedding[] = "model.embed_tokens.weight";
constexpr char kOutputNorm[] = "model.norm.weight";
constexpr char kHead[] = "lm_head.weight";

std::string LayerName(int layer, absl::string_view name) {
  return absl::StrCat("model.layers.", layer, ".", name);
}

absl::optional<DenseEncoding> DenseEncodingOf(absl::string_view dtype) {
  if (dtype == "F32") return DenseEncoding::kF32;
  if (dtype == "F16") return DenseEncoding::kF16;
  if (dtype == "BF16") return DenseEncoding::kBF16;
  return absl::nullopt;
}

TernaryEncoding MasterEncodingOf(DenseEncoding encoding) {
  return encoding == DenseEncoding::kF32   ? TernaryEncoding::kF32
         : encoding == DenseEncoding::kF16 ? TernaryEncoding::kF16
                                           : TernaryEncoding::kBF16;
}

std::string JoinPath(const std::string& directory, absl::string_view name) {
  return absl::StrCat(directory, absl::EndsWith(directory, "/") ? "" : "/",
                      name);
}

// A small file's text. NOT_FOUND when it is not there.
absl::StatusOr<std::string> ReadText(const std::string& path,
                                     size_t bytes_max) {
  ASSIGN_OR_RETURN(const std::unique_ptr<MappedFile> file,
                   MappedFile::Open(path));
  if (file->bytes().size() > bytes_max) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, " has ", file->bytes().size(), " bytes; at most ",
                     bytes_max, " are read"));
  }
  return std::string(file->bytes().begin(), file->bytes().end());
}

class SafetensorsSource : public ModelSource {
 public:
  // names: of the files in the directory.
  SafetensorsSource(std::vector<std::unique_ptr<SafetensorsReader>> files,
                    std::vector<std::string> names, std::string directory)
      : files_(std::move(files)),
        names_(std::move(names)),
        directory_(std::move(directory)) {}

  absl::Status Init(absl::string_view config_json) {
    ASSIGN_OR_RETURN(HfConfig config, ReadHfConfig(config_json));
    config_ = std::move(config.model);
    matrices_ = config.matrices;
    config_json_ = std::string(config_json);
    uint32_t crc = Crc32c(config_json.data(), config_json.size());
    for (const auto& file : files_) {
      crc = Crc32c(file->header().data(), file->header().size(), crc);
      file_bytes_ += file->file_bytes();
      for (const SafetensorsTensor& tensor : file->tensors()) {
        if (!tensors_.emplace(tensor.name, &tensor).second) {
          return absl::InvalidArgumentError(
              absl::StrCat("tensor ", absl::CHexEscape(tensor.name),
                           " is in two of the files"));
        }
      }
    }
    fingerprint_ =
        uint64_t{crc} << 32 | Crc32c(&file_bytes_, sizeof(file_bytes_));
    NameSubNorms();
    return CheckTensors();
  }

  uint64_t fingerprint() const override { return fingerprint_; }
  int64_t file_bytes() const override { return file_bytes_; }

  absl::StatusOr<LayerTensors> FindLayer(int layer) const override;

  absl::StatusOr<DenseTensor> FindEmbedding() const override {
    return FindDense(kEmbedding);
  }
  absl::StatusOr<DenseTensor> FindHead() const override {
    return FindDense(config_.tied_head ? kEmbedding : kHead);
  }
  absl::StatusOr<std::vector<float>> FindOutputNorm() const override {
    return FindNorm(kOutputNorm, config_.hidden_size);
  }

  absl::StatusOr<std::vector<ModelFile>> OpenFiles() const override;

  bool NeedsTensor(absl::string_view name,
                   const StageRange& range) const override {
    if (absl::ConsumePrefix(&name, "model.layers.")) {
      return IsInLayers(name, range);
    }
    if (name == kEmbedding) {
      return range.has_embedding || (range.has_head && config_.tied_head);
    }
    return range.has_head && (name == kHead || name == kOutputNorm);
  }

  void Release(absl::Span<const uint8_t> data) const override {
    // Whichever file it is of: all are mapped, or none.
    files_.front()->Release(data);
  }

  absl::StatusOr<TokenizerFiles> ReadTokenizerFiles() const override;

  absl::StatusOr<std::unique_ptr<Tokenizer>> LoadTokenizer() const override {
    ASSIGN_OR_RETURN(const TokenizerFiles files, ReadTokenizerFiles());
    return Tokenizer::FromJson(files.json, files.config_json,
                               config_.vocab_size);
  }
  absl::optional<std::string> chat_template() const override;

  absl::string_view format() const override { return "safetensors"; }

  std::vector<TensorInfo> tensors() const override {
    std::vector<TensorInfo> infos;
    for (const auto& file : files_) {
      for (const SafetensorsTensor& tensor : file->tensors()) {
        infos.push_back({tensor.name, tensor.dtype, tensor.shape,
                         static_cast<int64_t>(tensor.data.size())});
      }
    }
    return infos;
  }

  std::vector<std::pair<std::string, std::string>> metadata() const override {
    std::vector<std::pair<std::string, std::string>> pairs;
    const Json json = Json::parse(config_json_, nullptr, false);
    for (const auto& item : json.items()) {
      pairs.push_back({item.key(), item.value().dump(-1, ' ', true)});
    }
    for (const auto& file : files_) {
      pairs.insert(pairs.end(), file->metadata().begin(),
                   file->metadata().end());
    }
    return pairs;
  }

 private:
  using Shape = std::vector<int64_t>;

  // Two families of checkpoints give the sub-norms different names.
  void NameSubNorms() {
    if (tensors_.contains(LayerName(0, "self_attn.inner_attn_ln.weight"))) {
      attn_sub_norm_ = "self_attn.inner_attn_ln.weight";
      ffn_sub_norm_ = "mlp.ffn_layernorm.weight";
    }
  }

  absl::StatusOr<const SafetensorsTensor*> Find(absl::string_view name,
                                                const Shape& shape) const {
    const auto it = tensors_.find(name);
    if (it == tensors_.end()) {
      return absl::InvalidArgumentError(
          absl::StrCat("the model has no tensor ", name));
    }
    if (it->second->shape != shape) {
      return absl::InvalidArgumentError(absl::StrCat(
          "tensor ", name, " has shape [",
          absl::StrJoin(it->second->shape, ", "),
          "]; by config.json it should be [", absl::StrJoin(shape, ", "), "]"));
    }
    return it->second;
  }

  absl::StatusOr<DenseTensor> FindDense(const char* name) const {
    ASSIGN_OR_RETURN(const SafetensorsTensor* tensor,
                     Find(name, {config_.vocab_size, config_.hidden_size}));
    ASSIGN_OR_RETURN(const DenseEncoding encoding, FloatEncoding(*tensor));
    return DenseTensor{tensor->name, encoding, tensor->data, config_.vocab_size,
                       config_.hidden_size};
  }

  static absl::StatusOr<DenseEncoding> FloatEncoding(
      const SafetensorsTensor& tensor) {
    const absl::optional<DenseEncoding> encoding =
        DenseEncodingOf(tensor.dtype);
    if (encoding.has_value()) return *encoding;
    return absl::InvalidArgumentError(
        absl::StrCat("tensor ", tensor.name, " has type ", tensor.dtype,
                     "; Tern reads it as F32, F16 or BF16"));
  }

  absl::StatusOr<std::vector<float>> FindNorm(absl::string_view name,
                                              int n) const {
    ASSIGN_OR_RETURN(const SafetensorsTensor* tensor, Find(name, {n}));
    ASSIGN_OR_RETURN(const DenseEncoding encoding, FloatEncoding(*tensor));
    return ReadNorm(name, encoding, tensor->data, n);
  }

  // The scale of a packed matrix: one value, in a list or alone.
  absl::StatusOr<float> FindScale(const std::string& name) const {
    const auto it = tensors_.find(name);
    const bool is_scalar = it != tensors_.end() && it->second->shape.empty();
    ASSIGN_OR_RETURN(const SafetensorsTensor* tensor,
                     Find(name, is_scalar ? Shape{} : Shape{1}));
    ASSIGN_OR_RETURN(const DenseEncoding encoding, FloatEncoding(*tensor));
    ASSIGN_OR_RETURN(const std::vector<float> values,
                     ReadNorm(name, encoding, tensor->data, 1));
    const float scale =
        matrices_ == HfMatrices::kPacked ? values[0] : 1.0f / values[0];
    if (!std::isfinite(scale)) {
      return absl::InvalidArgumentError(absl::StrCat(
          "tensor ", name, " is ", values[0], ", which divides nothing"));
    }
    return scale;
  }

  absl::StatusOr<TernaryTensor> FindTernary(const std::string& stem, int n_out,
                                            int n_in, bool is_rotated) const {
    TernaryTensor ternary;
    ternary.name = stem + ".weight";
    ternary.n_out = n_out;
    ternary.n_in = n_in;
    if (is_rotated && config_.rope_kind == RopeKind::kNorm) {
      ternary.unpaired_head_dim = config_.head_dim;
    }
    if (matrices_ == HfMatrices::kMasters) {
      ASSIGN_OR_RETURN(const SafetensorsTensor* tensor,
                       Find(ternary.name, {n_out, n_in}));
      ASSIGN_OR_RETURN(const DenseEncoding encoding, FloatEncoding(*tensor));
      ternary.encoding = MasterEncodingOf(encoding);
      ternary.data = tensor->data;
      return ternary;
    }
    if (n_out % 4 != 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor ", ternary.name, " stands for ", n_out,
                       " rows, which do not pack by four"));
    }
    ASSIGN_OR_RETURN(const SafetensorsTensor* tensor,
                     Find(ternary.name, {n_out / 4, n_in}));
    if (tensor->dtype != "U8") {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor ", ternary.name, " has type ", tensor->dtype,
                       "; by quantization_config it should be packed, U8"));
    }
    ternary.encoding = TernaryEncoding::kPackedRows;
    ternary.data = tensor->data;
    ASSIGN_OR_RETURN(ternary.scale, FindScale(ternary.name + "_scale"));
    return ternary;
  }

  absl::Status CheckTensors();

  const std::vector<std::unique_ptr<SafetensorsReader>> files_;
  const std::vector<std::string> names_;
  const std::string directory_;
  std::string config_json_;
  HfMatrices matrices_ = HfMatrices::kPacked;
  const char* attn_sub_norm_ = "self_attn.attn_sub_norm.weight";
  const char* ffn_sub_norm_ = "mlp.ffn_sub_norm.weight";
  absl::flat_hash_map<std::string, const SafetensorsTensor*> tensors_;
  uint64_t fingerprint_ = 0;
  int64_t file_bytes_ = 0;
};

absl::StatusOr<LayerTensors> SafetensorsSource::FindLayer(int layer) const {
  CHECK(layer >= 0 && layer < config_.n_layers) << "layer " << layer;
  const int hidden = config_.hidden_size;
  const int ffn = config_.ffn_size;
  const auto norm = [&](absl::string_view name, int n) {
    return FindNorm(LayerName(layer, name), n);
  };
  const auto ternary = [&](absl::string_view name, int n_out, int n_in,
                           bool is_rotated = false) {
    return FindTernary(LayerName(layer, name), n_out, n_in, is_rotated);
  };
  LayerTensors t;
  ASSIGN_OR_RETURN(t.attn_norm, norm("input_layernorm.weight", hidden));
  ASSIGN_OR_RETURN(t.ffn_norm, norm("post_attention_layernorm.weight", hidden));
  if (config_.has_sub_norms) {
    ASSIGN_OR_RETURN(t.attn_sub_norm, norm(attn_sub_norm_, config_.q_size()));
    ASSIGN_OR_RETURN(t.ffn_sub_norm, norm(ffn_sub_norm_, ffn));
  }
  ASSIGN_OR_RETURN(t.q,
                   ternary("self_attn.q_proj", config_.q_size(), hidden, true));
  ASSIGN_OR_RETURN(
      t.k, ternary("self_attn.k_proj", config_.kv_size(), hidden, true));
  ASSIGN_OR_RETURN(t.v, ternary("self_attn.v_proj", config_.kv_size(), hidden));
  ASSIGN_OR_RETURN(t.o, ternary("self_attn.o_proj", hidden, config_.q_size()));
  ASSIGN_OR_RETURN(t.gate, ternary("mlp.gate_proj", ffn, hidden));
  ASSIGN_OR_RETURN(t.up, ternary("mlp.up_proj", ffn, hidden));
  ASSIGN_OR_RETURN(t.down, ternary("mlp.down_proj", hidden, ffn));
  return t;
}

absl::StatusOr<std::vector<ModelFile>> SafetensorsSource::OpenFiles() const {
  if (directory_.empty()) {
    return absl::FailedPreconditionError("a model in memory has no files");
  }
  std::vector<ModelFile> files;
  // Texts; `part` is empty for those that the model cannot be opened without.
  const auto add_text = [&](const char* name, absl::string_view part,
                            bool is_required) -> absl::Status {
    absl::StatusOr<std::unique_ptr<MappedFile>> file =
        MappedFile::Open(JoinPath(directory_, name));
    if (!is_required && absl::IsNotFound(file.status())) {
      return absl::OkStatus();
    }
    RETURN_IF_ERROR(file.status());
    const int64_t bytes = static_cast<int64_t>((*file)->bytes().size());
    ModelFile text{name, *std::move(file), {}};
    if (bytes > 0) text.parts.push_back({std::string(part), 0, bytes});
    files.push_back(std::move(text));
    return absl::OkStatus();
  };
  RETURN_IF_ERROR(add_text("config.json", "", true));
  RETURN_IF_ERROR(add_text(kIndexName, "", false));
  for (size_t i = 0; i < files_.size(); ++i) {
    const SafetensorsReader& reader = *files_[i];
    ModelFile file{names_[i], reader.file(), {}};
    const uint8_t* const begin = reader.file()->bytes().data();
    file.parts.push_back({"", 0, static_cast<int64_t>(reader.header().size())});
    for (const SafetensorsTensor& tensor : reader.tensors()) {
      if (tensor.data.empty()) continue;
      file.parts.push_back({tensor.name, tensor.data.data() - begin,
                            static_cast<int64_t>(tensor.data.size())});
    }
    std::sort(file.parts.begin() + 1, file.parts.end(),
              [](const ModelFile::Part& a, const ModelFile::Part& b) {
                return a.offset < b.offset;
              });
    files.push_back(std::move(file));
  }
  for (const char* name :
       {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}) {
    RETURN_IF_ERROR(add_text(name, name, false));
  }
  return files;
}

// Every tensor that the graph uses is there, and every tensor that is there is
// one that the graph uses: a bias that is passed over would give wrong text
// without a word.
absl::Status SafetensorsSource::CheckTensors() {
  absl::flat_hash_set<std::string> used = {kEmbedding, kOutputNorm};
  RETURN_IF_ERROR(FindEmbedding().status());
  RETURN_IF_ERROR(FindHead().status());
  RETURN_IF_ERROR(FindOutputNorm().status());
  if (!config_.tied_head) {
    used.insert(kHead);
  } else if (tensors_.contains(kHead)) {
    used.insert(kHead);
    warnings_.push_back(absl::StrCat(
        kHead, " is not used: by config.json the head is the embedding"));
  }
  for (int i = 0; i < config_.n_layers; ++i) {
    ASSIGN_OR_RETURN(const LayerTensors t, FindLayer(i));
    for (const TernaryTensor* m :
         {&t.q, &t.k, &t.v, &t.o, &t.gate, &t.up, &t.down}) {
      used.insert(m->name);
      if (matrices_ != HfMatrices::kMasters) used.insert(m->name + "_scale");
    }
    used.insert(LayerName(i, "input_layernorm.weight"));
    used.insert(LayerName(i, "post_attention_layernorm.weight"));
    if (config_.has_sub_norms) {
      used.insert(LayerName(i, attn_sub_norm_));
      used.insert(LayerName(i, ffn_sub_norm_));
    }
    // Angles that follow from rope_theta; old checkpoints carry them.
    used.insert(LayerName(i, "self_attn.rotary_emb.inv_freq"));
  }
  for (const auto& [name, tensor] : tensors_) {
    if (!used.contains(name)) {
      return absl::InvalidArgumentError(absl::StrCat(
          "the model has a tensor ", absl::CHexEscape(name), " that a ",
          config_.architecture, " model of ", config_.n_layers,
          " layers does not have; Tern would not use it and refuses to guess"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<ModelSource::TokenizerFiles>
SafetensorsSource::ReadTokenizerFiles() const {
  if (directory_.empty()) {
    return absl::NotFoundError("a model in memory has no tokenizer");
  }
  TokenizerFiles files;
  ASSIGN_OR_RETURN(files.json, ReadText(JoinPath(directory_, "tokenizer.json"),
                                        kTokenizerBytesMax));
  absl::StatusOr<std::string> config =
      ReadText(JoinPath(directory_, "tokenizer_config.json"), kConfigBytesMax);
  if (absl::IsNotFound(config.status())) return files;
  ASSIGN_OR_RETURN(files.config_json, std::move(config));
  return files;
}

absl::optional<std::string> SafetensorsSource::chat_template() const {
  if (directory_.empty()) return absl::nullopt;
  auto text =
      ReadText(JoinPath(directory_, "chat_template.jinja"), kConfigBytesMax);
  if (text.ok()) return *std::move(text);
  const auto config =
      ReadText(JoinPath(directory_, "tokenizer_config.json"), kConfigBytesMax);
  if (!config.ok()) return absl::nullopt;
  const Json json = Json::parse(*config, nullptr, false);
  if (!json.is_object()) return absl::nullopt;
  const auto it = json.find("chat_template");
  if (it == json.end()) return absl::nullopt;
  if (it->is_string()) return it->get<std::string>();
  // Or a list of templates by name.
  if (!it->is_array()) return absl::nullopt;
  for (const Json& entry : *it) {
    if (entry.is_object() && entry.value("name", Json()) == "default" &&
        entry.contains("template") && entry.at("template").is_string()) {
      return entry.at("template").get<std::string>();
    }
  }
  return absl::nullopt;
}

// Names of the files with weights, each once and in order.
absl::StatusOr<std::set<std::string>> WeightFiles(
    const std::string& directory, std::map<std::string, std::string>* places) {
  std::set<std::string> names;
  const absl::StatusOr<std::string> index =
      ReadText(JoinPath(directory, kIndexName), kIndexBytesMax);
  if (absl::IsNotFound(index.status())) {
    std::error_code error;
    for (std::filesystem::directory_iterator it(directory, error), end;
         !error && it != end; it.increment(error)) {
      const std::string name = it->path().filename().string();
      if (absl::EndsWith(name, ".safetensors")) names.insert(name);
    }
    if (error) {
      return absl::InvalidArgumentError(
          absl::StrCat("cannot list ", directory, ": ", error.message()));
    }
    // One whole model beats parts of which nobody says that they belong to it.
    if (names.count("model.safetensors") != 0) names = {"model.safetensors"};
    return names;
  }
  RETURN_IF_ERROR(index.status());
  const Json json = Json::parse(*index, nullptr, /*allow_exceptions=*/false);
  const auto weight_map =
      json.is_object() ? json.find("weight_map") : json.end();
  if (weight_map == json.end() || !weight_map->is_object()) {
    return absl::InvalidArgumentError(
        absl::StrCat(kIndexName, " has no object weight_map"));
  }
  for (const auto& item : weight_map->items()) {
    const std::string name =
        item.value().is_string() ? item.value().get<std::string>() : "";
    // A name of a file beside the index, not a path to anywhere.
    if (!absl::EndsWith(name, ".safetensors") || absl::StrContains(name, '/') ||
        absl::StrContains(name, '\0')) {
      return absl::InvalidArgumentError(absl::StrCat(
          kIndexName, " puts tensor ", absl::CHexEscape(item.key()), " into '",
          absl::CHexEscape(name),
          "', which is no name of a safetensors file beside it"));
    }
    names.insert(name);
    (*places)[item.key()] = name;
  }
  return names;
}

// Every tensor is where the index says.
absl::Status CheckPlaces(const std::map<std::string, std::string>& places,
                         const std::string& file_name,
                         const SafetensorsReader& file) {
  absl::flat_hash_set<absl::string_view> names;
  for (const SafetensorsTensor& tensor : file.tensors()) {
    names.insert(tensor.name);
  }
  for (const auto& [tensor, place] : places) {
    if (place == file_name && !names.contains(tensor)) {
      return absl::InvalidArgumentError(
          absl::StrCat(file_name, " has no tensor ", absl::CHexEscape(tensor),
                       ", which ", kIndexName, " says it has"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<ModelSource>> MakeSafetensorsSource(
    absl::string_view config_json,
    std::vector<std::unique_ptr<SafetensorsReader>> files,
    std::vector<std::string> names, const std::string& directory) {
  CHECK(!files.empty() && files.size() == names.size());
  auto source = std::make_unique<SafetensorsSource>(
      std::move(files), std::move(names), directory);
  RETURN_IF_ERROR(source->Init(config_json));
  return std::unique_ptr<ModelSource>(std::move(source));
}

absl::StatusOr<std::unique_ptr<ModelSource>> OpenSafetensorsSource(
    const std::string& directory) {
  const auto in_directory = [&](const absl::Status& status) {
    return absl::Status(status.code(),
                        absl::StrCat(directory, ": ", status.message()));
  };
  absl::StatusOr<std::string> config =
      ReadText(JoinPath(directory, "config.json"), kConfigBytesMax);
  if (!config.ok()) return in_directory(config.status());
  std::map<std::string, std::string> places;
  const absl::StatusOr<std::set<std::string>> names =
      WeightFiles(directory, &places);
  if (!names.ok()) return in_directory(names.status());
  if (names->empty() || names->size() > kFilesMax) {
    return in_directory(absl::InvalidArgumentError(
        absl::StrCat("it has ", names->size(), " safetensors files; 1 to ",
                     kFilesMax, " are read")));
  }
  std::vector<std::unique_ptr<SafetensorsReader>> files;
  for (const std::string& name : *names) {
    ASSIGN_OR_RETURN(std::unique_ptr<SafetensorsReader> file,
                     SafetensorsReader::Open(JoinPath(directory, name)));
    const absl::Status status = CheckPlaces(places, name, *file);
    if (!status.ok()) return in_directory(status);
    files.push_back(std::move(file));
  }
  auto source = MakeSafetensorsSource(
      *config, std::move(files),
      std::vector<std::string>(names->begin(), names->end()), directory);
  if (!source.ok()) return in_directory(source.status());
  return source;
}

}  // namespace tern
