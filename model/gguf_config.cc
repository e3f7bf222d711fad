#include "model/gguf_config.h"

#include <cstdint>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "model/gguf_weights.h"
#include "model/tensor_shapes.h"
#include "util/status_macros.h"

namespace tern {
namespace {

// What the graphs of the architectures differ in. An architecture's files have
// NORM order in q and k only where it says so.
struct Architecture {
  const char* name;
  Activation activation;
  RopeKind rope_kind;
  bool has_sub_norms;
  bool has_own_head;  // output.weight, where there is one, is the head
};

constexpr Architecture kArchitectures[] = {
    {"bitnet-b1.58", Activation::kRelu2, RopeKind::kNeox, true, true},
    {"bitnet-25", Activation::kRelu2, RopeKind::kNeox, true, true},
    {"bitnet", Activation::kSilu, RopeKind::kNeox, true, false},
    {"llama", Activation::kSilu, RopeKind::kNorm, false, true},
};

absl::StatusOr<Architecture> FindArchitecture(absl::string_view name) {
  std::vector<absl::string_view> names;
  for (const Architecture& architecture : kArchitectures) {
    if (name == architecture.name) return architecture;
    names.push_back(architecture.name);
  }
  return absl::UnimplementedError(absl::StrCat(
      "architecture '", absl::CHexEscape(name), "' is not served; Tern serves ",
      absl::StrJoin(names, ", ")));
}

// Reads the keys of one architecture, "<architecture>.<name>".
class ArchitectureKeys {
 public:
  ArchitectureKeys(const GgufReader& file, const std::string& architecture)
      : file_(file), prefix_(architecture + ".") {}

  std::string Name(absl::string_view name) const {
    return absl::StrCat(prefix_, name);
  }
  bool Has(absl::string_view name) const { return file_.HasKey(Name(name)); }

  // A required integer in [min, max].
  absl::StatusOr<int> Int(absl::string_view name, int min, int max) const {
    const absl::StatusOr<int64_t> value = file_.GetInt(Name(name));
    if (absl::IsNotFound(value.status())) {
      return absl::InvalidArgumentError(
          absl::StrCat("the file has no metadata key ", Name(name)));
    }
    RETURN_IF_ERROR(value.status());
    if (*value < min || *value > max) {
      return absl::InvalidArgumentError(absl::StrCat(
          Name(name), " is ", *value, "; Tern serves ", min, " to ", max));
    }
    return static_cast<int>(*value);
  }

  absl::StatusOr<int> IntOr(absl::string_view name, int default_value, int min,
                            int max) const {
    if (!Has(name)) return default_value;
    return Int(name, min, max);
  }

  absl::StatusOr<double> FloatOr(absl::string_view name,
                                 double default_value) const {
    if (!Has(name)) return default_value;
    return file_.GetFloat(Name(name));
  }

 private:
  const GgufReader& file_;
  const std::string prefix_;
};

// A number stated twice must be the same number.
absl::Status CheckSame(absl::string_view name, int value, int expected,
                       absl::string_view why) {
  if (value == expected) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(name, " is ", value, "; it must be ", expected, why));
}

absl::Status CheckRopeScaling(const GgufReader& file,
                              const ArchitectureKeys& keys) {
  absl::string_view type = "none";
  if (keys.Has("rope.scaling.type")) {
    ASSIGN_OR_RETURN(type, file.GetString(keys.Name("rope.scaling.type")));
  }
  if (type != "none" && type != "linear") {
    return absl::UnimplementedError(
        absl::StrCat(keys.Name("rope.scaling.type"), " is '", type,
                     "'; Tern serves models without RoPE scaling"));
  }
  for (const char* name : {"rope.scaling.factor", "rope.scale_linear"}) {
    ASSIGN_OR_RETURN(const double factor, keys.FloatOr(name, 1.0));
    if (factor != 1.0) {
      return absl::UnimplementedError(
          absl::StrCat(keys.Name(name), " is ", factor,
                       "; Tern serves models without RoPE scaling"));
    }
  }
  return absl::OkStatus();
}

absl::Status ReadAttention(const ArchitectureKeys& keys, ModelConfig* config) {
  ASSIGN_OR_RETURN(config->n_heads,
                   keys.Int("attention.head_count", 1, kHeadsMax));
  ASSIGN_OR_RETURN(config->n_kv_heads,
                   keys.IntOr("attention.head_count_kv", config->n_heads, 1,
                              config->n_heads));
  if (config->n_heads % config->n_kv_heads != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        keys.Name("attention.head_count"), " is ", config->n_heads, ", which ",
        config->n_kv_heads, " key and value heads do not divide"));
  }
  if (keys.Has("attention.key_length")) {
    ASSIGN_OR_RETURN(config->head_dim,
                     keys.Int("attention.key_length", 2, kHeadDimMax));
  } else if (config->hidden_size % config->n_heads == 0) {
    config->head_dim = config->hidden_size / config->n_heads;
  } else {
    return absl::InvalidArgumentError(absl::StrCat(
        keys.Name("embedding_length"), " is ", config->hidden_size, ", which ",
        config->n_heads, " heads do not divide, and there is no ",
        keys.Name("attention.key_length")));
  }
  RETURN_IF_ERROR(CheckHeadDim(config->head_dim));
  const std::string why = ", the elements of a head";
  ASSIGN_OR_RETURN(
      const int value_length,
      keys.IntOr("attention.value_length", config->head_dim, 1, kWidthMax));
  RETURN_IF_ERROR(CheckSame(keys.Name("attention.value_length"), value_length,
                            config->head_dim, why));
  ASSIGN_OR_RETURN(
      const int rope_dims,
      keys.IntOr("rope.dimension_count", config->head_dim, 1, kWidthMax));
  return CheckSame(keys.Name("rope.dimension_count"), rope_dims,
                   config->head_dim, why);
}

absl::Status ReadFloats(const ArchitectureKeys& keys, ModelConfig* config) {
  ASSIGN_OR_RETURN(config->rope_theta, keys.FloatOr("rope.freq_base", 10000.0));
  if (config->rope_theta <= 0) {
    return absl::InvalidArgumentError(absl::StrCat(keys.Name("rope.freq_base"),
                                                   " is ", config->rope_theta,
                                                   "; it must be positive"));
  }
  const std::string eps_name = "attention.layer_norm_rms_epsilon";
  if (!keys.Has(eps_name)) {
    return absl::InvalidArgumentError(
        absl::StrCat("the file has no metadata key ", keys.Name(eps_name)));
  }
  ASSIGN_OR_RETURN(const double eps, keys.FloatOr(eps_name, 0));
  config->norm_eps = static_cast<float>(eps);
  if (!(config->norm_eps > 0 && config->norm_eps < 1)) {
    return absl::InvalidArgumentError(absl::StrCat(
        keys.Name(eps_name), " is ", eps, "; it must lie between 0 and 1"));
  }
  return absl::OkStatus();
}

int64_t SizeOf(const ModelConfig& config, Width width) {
  switch (width) {
    case Width::kHidden:
      return config.hidden_size;
    case Width::kQuery:
      return config.q_size();
    case Width::kKeyValue:
      return config.kv_size();
    case Width::kFfn:
      return config.ffn_size;
  }
  return 0;
}

// Every tensor that the graph uses is there, and every tensor that is there is
// one that the graph uses: a bias that is passed over would give wrong text
// without a word.
absl::Status CheckTensors(const GgufReader& file, const ModelConfig& config,
                          bool ignores_output) {
  absl::flat_hash_set<std::string> expected;
  const auto check = [&](std::string name, int64_t n_columns,
                         int64_t n_rows) -> absl::Status {
    RETURN_IF_ERROR(FindShapedTensor(file, name, n_columns, n_rows).status());
    expected.insert(std::move(name));
    return absl::OkStatus();
  };
  RETURN_IF_ERROR(
      check("token_embd.weight", config.hidden_size, config.vocab_size));
  RETURN_IF_ERROR(check("output_norm.weight", config.hidden_size, 0));
  if (!config.tied_head || ignores_output) {
    RETURN_IF_ERROR(
        check("output.weight", config.hidden_size, config.vocab_size));
  }
  for (int layer = 0; layer < config.n_layers; ++layer) {
    for (const LayerTensorShape& shape : LayerTensorShapes()) {
      if (shape.is_sub_norm && !config.has_sub_norms) continue;
      std::string name = absl::StrCat("blk.", layer, ".", shape.stem);
      if (!shape.is_norm) {
        std::string scale = absl::StrCat(name, ".scale");
        if (file.FindTensor(scale) != nullptr) {
          RETURN_IF_ERROR(check(std::move(scale), 1, 0));
        }
      }
      absl::StrAppend(&name, ".weight");
      const GgufTensor* tensor = file.FindTensor(name);
      RETURN_IF_ERROR(check(std::move(name), SizeOf(config, shape.n_in),
                            shape.is_norm ? 0 : SizeOf(config, shape.n_out)));
      if (!shape.is_norm) RETURN_IF_ERROR(CheckTernaryType(*tensor));
    }
  }
  for (const GgufTensor& tensor : file.tensors()) {
    if (!expected.contains(tensor.name)) {
      return absl::InvalidArgumentError(absl::StrCat(
          "the file has a tensor ", absl::CHexEscape(tensor.name), " that a ",
          config.architecture, " model of ", config.n_layers,
          " layers does not have; Tern would not use it and refuses to guess"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ModelConfig> ReadModelConfig(
    const GgufReader& file, std::vector<std::string>* warnings) {
  ModelConfig config;
  const absl::StatusOr<absl::string_view> name =
      file.GetString("general.architecture");
  if (!name.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("no model: ", name.status().message()));
  }
  ASSIGN_OR_RETURN(const Architecture architecture, FindArchitecture(*name));
  config.architecture = architecture.name;
  config.activation = architecture.activation;
  config.rope_kind = architecture.rope_kind;
  config.has_sub_norms = architecture.has_sub_norms;
  if (file.HasKey("general.name")) {
    ASSIGN_OR_RETURN(const absl::string_view name,
                     file.GetString("general.name"));
    config.name = std::string(name);
  }

  const ArchitectureKeys keys(file, config.architecture);
  ASSIGN_OR_RETURN(config.n_layers, keys.Int("block_count", 1, kLayersMax));
  ASSIGN_OR_RETURN(config.hidden_size,
                   keys.Int("embedding_length", 1, kWidthMax));
  ASSIGN_OR_RETURN(config.ffn_size,
                   keys.Int("feed_forward_length", 1, kWidthMax));
  ASSIGN_OR_RETURN(config.context_length,
                   keys.Int("context_length", 1, kContextMax));
  RETURN_IF_ERROR(ReadAttention(keys, &config));
  RETURN_IF_ERROR(ReadFloats(keys, &config));
  RETURN_IF_ERROR(CheckRopeScaling(file, keys));
  RETURN_IF_ERROR(
      CheckWidth(keys.Name("embedding_length"), config.hidden_size));
  RETURN_IF_ERROR(
      CheckWidth(keys.Name("feed_forward_length"), config.ffn_size));
  RETURN_IF_ERROR(CheckWidth("the width of all heads", config.q_size()));

  // Some converters leave the vocabulary to the embedding.
  const GgufTensor* embedding = file.FindTensor("token_embd.weight");
  if (embedding == nullptr || embedding->rows() > kVocabMax) {
    return absl::InvalidArgumentError(
        embedding == nullptr
            ? std::string("the file has no tensor token_embd.weight")
            : absl::StrCat("token_embd.weight has ", embedding->rows(),
                           " rows; Tern serves at most ", kVocabMax));
  }
  const int rows = static_cast<int>(embedding->rows());
  ASSIGN_OR_RETURN(config.vocab_size,
                   keys.IntOr("vocab_size", rows, 1, kVocabMax));
  const bool has_output = file.FindTensor("output.weight") != nullptr;
  config.tied_head = !has_output || !architecture.has_own_head;
  const bool ignores_output = has_output && config.tied_head;
  if (ignores_output && warnings != nullptr) {
    warnings->push_back(
        absl::StrCat("output.weight is not used: the head of a ",
                     config.architecture, " model is its embedding"));
  }
  RETURN_IF_ERROR(CheckTensors(file, config, ignores_output));
  return config;
}

}  // namespace tern
