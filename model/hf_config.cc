#include "model/hf_config.h"

#include <cmath>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "util/status_macros.h"

namespace tern {
namespace {

using Json = nlohmann::json;

constexpr size_t kConfigBytesMax = 1 << 20;

// What the classes of the architectures fill in themselves.
struct Architecture {
  const char* hf_name;
  const char* name;
  RopeKind rope_kind;
  bool has_sub_norms;
  double rope_theta;
  // Ternary without a quantization_config: the class rounds its own weights.
  bool is_always_ternary;
};

constexpr Architecture kArchitectures[] = {
    {"BitNetForCausalLM", "bitnet-b1.58", RopeKind::kNeox, true, 500000.0,
     false},
    {"BitnetForCausalLM", "bitnet", RopeKind::kNeox, true, 10000.0, true},
    {"LlamaForCausalLM", "llama", RopeKind::kNorm, false, 10000.0, false},
};

std::string Shown(const Json& value) {
  constexpr size_t kShown = 60;
  const std::string text =
      value.dump(-1, ' ', true, Json::error_handler_t::replace);
  return text.size() > kShown ? absl::StrCat(text.substr(0, kShown), "...")
                              : text;
}

// Fields of an object of the file. One that is null counts as absent.
class Fields {
 public:
  Fields(const Json& object, std::string prefix)
      : object_(object), prefix_(std::move(prefix)) {}

  const Json* Find(const char* name) const {
    const auto it = object_.find(name);
    return it == object_.end() || it->is_null() ? nullptr : &*it;
  }

  absl::Status Wrong(const char* name, absl::string_view wanted) const {
    return absl::InvalidArgumentError(
        absl::StrCat("config.json: ", prefix_, name, " is ",
                     Shown(object_.at(name)), "; it must be ", wanted));
  }
  absl::Status NotServed(const char* name, absl::string_view served) const {
    return absl::UnimplementedError(
        absl::StrCat("config.json: ", prefix_, name, " is ",
                     Shown(object_.at(name)), "; Tern serves ", served));
  }

  absl::StatusOr<int> Int(const char* name, int min, int max) const {
    const Json* const value = Find(name);
    if (value == nullptr) {
      return absl::InvalidArgumentError(
          absl::StrCat("config.json has no ", prefix_, name));
    }
    const std::string wanted = absl::StrCat("a number from ", min, " to ", max);
    if (!value->is_number_integer()) return Wrong(name, wanted);
    const bool fits = value->is_number_unsigned()
                          ? value->get<uint64_t>() <= static_cast<uint64_t>(max)
                          : value->get<int64_t>() <= max;
    if (!fits || value->get<int64_t>() < min) return Wrong(name, wanted);
    return static_cast<int>(value->get<int64_t>());
  }
  absl::StatusOr<int> IntOr(const char* name, int default_value, int min,
                            int max) const {
    return Find(name) == nullptr ? default_value : Int(name, min, max);
  }
  absl::StatusOr<double> FloatOr(const char* name, double default_value) const {
    const Json* const value = Find(name);
    if (value == nullptr) return default_value;
    if (!value->is_number()) return Wrong(name, "a number");
    const double number = value->get<double>();
    if (!std::isfinite(number)) return Wrong(name, "finite");
    return number;
  }
  absl::StatusOr<bool> BoolOr(const char* name, bool default_value) const {
    const Json* const value = Find(name);
    if (value == nullptr) return default_value;
    if (!value->is_boolean()) return Wrong(name, "true or false");
    return value->get<bool>();
  }
  absl::StatusOr<std::string> StringOr(const char* name,
                                       const char* default_value) const {
    const Json* const value = Find(name);
    if (value == nullptr) return std::string(default_value);
    if (!value->is_string()) return Wrong(name, "a string");
    return value->get<std::string>();
  }

 private:
  const Json& object_;
  const std::string prefix_;
};

absl::StatusOr<Architecture> FindArchitecture(const Fields& fields) {
  const Json* const list = fields.Find("architectures");
  if (list == nullptr) {
    return absl::InvalidArgumentError(
        "config.json has no architectures: it is not that of a model");
  }
  if (list->is_array() && list->size() == 1 && list->front().is_string()) {
    const std::string name = list->front().get<std::string>();
    for (const Architecture& architecture : kArchitectures) {
      if (name == architecture.hf_name) return architecture;
    }
  }
  return fields.NotServed(
      "architectures",
      "BitNetForCausalLM, BitnetForCausalLM, and LlamaForCausalLM with a "
      "quantization_config of bitnet");
}

absl::Status ReadRope(const Fields& fields, const Architecture& architecture,
                      ModelConfig* config) {
  ASSIGN_OR_RETURN(config->rope_theta,
                   fields.FloatOr("rope_theta", architecture.rope_theta));
  // One object for scaling alone, or, in newer files, for all of RoPE.
  for (const char* const name : {"rope_scaling", "rope_parameters"}) {
    const Json* const object = fields.Find(name);
    if (object == nullptr) continue;
    if (!object->is_object()) return fields.Wrong(name, "an object");
    const Fields rope(*object, absl::StrCat(name, "."));
    ASSIGN_OR_RETURN(config->rope_theta,
                     rope.FloatOr("rope_theta", config->rope_theta));
    ASSIGN_OR_RETURN(const double factor, rope.FloatOr("factor", 1.0));
    for (const char* const key : {"rope_type", "type"}) {
      ASSIGN_OR_RETURN(const std::string type, rope.StringOr(key, "default"));
      if (type != "default" && !(type == "linear" && factor == 1.0)) {
        return rope.NotServed(key, "models without RoPE scaling");
      }
    }
    if (factor != 1.0) {
      return rope.NotServed("factor", "models without RoPE scaling");
    }
    if (rope.Find("partial_rotary_factor") != nullptr) {
      ASSIGN_OR_RETURN(const double part,
                       rope.FloatOr("partial_rotary_factor", 1.0));
      if (part != 1.0) return rope.NotServed("partial_rotary_factor", "1");
    }
  }
  if (!(config->rope_theta > 0 && config->rope_theta < 1e30)) {
    return absl::InvalidArgumentError(
        absl::StrCat("config.json: rope_theta is ", config->rope_theta,
                     "; it must be above 0 and below 1e30"));
  }
  // GGUF files hold a float32: the same model is to have the same angles.
  config->rope_theta = static_cast<float>(config->rope_theta);
  return absl::OkStatus();
}

absl::Status ReadShape(const Fields& fields, ModelConfig* config) {
  ASSIGN_OR_RETURN(config->n_layers,
                   fields.Int("num_hidden_layers", 1, kLayersMax));
  ASSIGN_OR_RETURN(config->hidden_size,
                   fields.Int("hidden_size", 1, kWidthMax));
  ASSIGN_OR_RETURN(config->ffn_size,
                   fields.Int("intermediate_size", 1, kWidthMax));
  ASSIGN_OR_RETURN(config->vocab_size, fields.Int("vocab_size", 1, kVocabMax));
  ASSIGN_OR_RETURN(config->context_length,
                   fields.Int("max_position_embeddings", 1, kContextMax));
  ASSIGN_OR_RETURN(config->n_heads,
                   fields.Int("num_attention_heads", 1, kHeadsMax));
  ASSIGN_OR_RETURN(
      config->n_kv_heads,
      fields.IntOr("num_key_value_heads", config->n_heads, 1, config->n_heads));
  if (config->n_heads % config->n_kv_heads != 0) {
    return fields.Wrong("num_key_value_heads",
                        "a divisor of num_attention_heads");
  }
  if (fields.Find("head_dim") != nullptr) {
    ASSIGN_OR_RETURN(config->head_dim, fields.Int("head_dim", 2, kHeadDimMax));
  } else if (config->hidden_size % config->n_heads == 0) {
    config->head_dim = config->hidden_size / config->n_heads;
  } else {
    return fields.Wrong("num_attention_heads",
                        "a divisor of hidden_size, as there is no head_dim");
  }
  RETURN_IF_ERROR(CheckHeadDim(config->head_dim));
  RETURN_IF_ERROR(CheckWidth("config.json: hidden_size", config->hidden_size));
  RETURN_IF_ERROR(
      CheckWidth("config.json: intermediate_size", config->ffn_size));
  return CheckWidth("config.json: the width of all heads", config->q_size());
}

absl::Status ReadGraph(const Fields& fields, const Architecture& architecture,
                       ModelConfig* config) {
  ASSIGN_OR_RETURN(const std::string activation,
                   fields.StringOr("hidden_act", ""));
  if (activation == "relu2") {
    config->activation = Activation::kRelu2;
  } else if (activation == "silu") {
    config->activation = Activation::kSilu;
  } else if (activation.empty()) {
    return absl::InvalidArgumentError("config.json has no hidden_act");
  } else {
    return fields.NotServed("hidden_act", "relu2 and silu");
  }
  if (fields.Find("rms_norm_eps") == nullptr) {
    return absl::InvalidArgumentError("config.json has no rms_norm_eps");
  }
  ASSIGN_OR_RETURN(const double eps, fields.FloatOr("rms_norm_eps", 0));
  config->norm_eps = static_cast<float>(eps);
  if (!(config->norm_eps > 0 && config->norm_eps < 1)) {
    return fields.Wrong("rms_norm_eps", "between 0 and 1");
  }
  for (const char* const name : {"attention_bias", "mlp_bias"}) {
    ASSIGN_OR_RETURN(const bool has_bias, fields.BoolOr(name, false));
    if (has_bias) return fields.NotServed(name, "models without biases");
  }
  ASSIGN_OR_RETURN(config->tied_head,
                   fields.BoolOr("tie_word_embeddings", false));
  // The class of this architecture has no head of its own.
  if (architecture.is_always_ternary) config->tied_head = true;
  return ReadRope(fields, architecture, config);
}

absl::StatusOr<HfMatrices> ReadQuantization(const Json& object) {
  const Fields fields(object, "quantization_config.");
  ASSIGN_OR_RETURN(const std::string method,
                   fields.StringOr("quant_method", ""));
  if (method != "bitnet") {
    return absl::UnimplementedError(
        absl::StrCat("config.json: quantization_config.quant_method is '",
                     absl::CHexEscape(method), "'; Tern serves bitnet"));
  }
  ASSIGN_OR_RETURN(const bool use_rms_norm,
                   fields.BoolOr("use_rms_norm", false));
  if (use_rms_norm) {
    return fields.NotServed("use_rms_norm",
                            "models without a norm in every linear layer");
  }
  if (const Json* const list = fields.Find("modules_to_not_convert")) {
    if (!list->is_array()) {
      return fields.Wrong("modules_to_not_convert", "a list");
    }
    for (const Json& module : *list) {
      if (module != "lm_head") {
        return fields.NotServed("modules_to_not_convert",
                                "models in which the head alone is dense");
      }
    }
  }
  ASSIGN_OR_RETURN(const std::string linear_class,
                   fields.StringOr("linear_class", "bitlinear"));
  ASSIGN_OR_RETURN(const std::string mode,
                   fields.StringOr("quantization_mode", "offline"));
  if (mode != "offline" && mode != "online") {
    return fields.NotServed("quantization_mode", "offline and online");
  }
  if (linear_class == "autobitlinear") {
    return mode == "online" ? HfMatrices::kMasters : HfMatrices::kPacked;
  }
  if (linear_class == "bitlinear" && mode == "offline") {
    return HfMatrices::kPackedReciprocal;
  }
  if (linear_class == "bitlinear") {
    return fields.NotServed("quantization_mode", "bitlinear offline only");
  }
  return fields.NotServed("linear_class", "bitlinear and autobitlinear");
}

}  // namespace

absl::StatusOr<HfConfig> ReadHfConfig(absl::string_view text) {
  if (text.size() > kConfigBytesMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("config.json has ", text.size(), " bytes; at most ",
                     kConfigBytesMax, " are read"));
  }
  const Json json = Json::parse(text.begin(), text.end(), nullptr,
                                /*allow_exceptions=*/false);
  if (!json.is_object()) {
    return absl::InvalidArgumentError("config.json is no JSON object");
  }
  const Fields fields(json, "");
  ASSIGN_OR_RETURN(const Architecture architecture, FindArchitecture(fields));
  HfConfig config;
  config.model.architecture = architecture.name;
  config.model.rope_kind = architecture.rope_kind;
  config.model.has_sub_norms = architecture.has_sub_norms;
  ASSIGN_OR_RETURN(config.model.name, fields.StringOr("_name_or_path", ""));
  RETURN_IF_ERROR(ReadShape(fields, &config.model));
  RETURN_IF_ERROR(ReadGraph(fields, architecture, &config.model));
  const Json* const quantization = fields.Find("quantization_config");
  if (quantization != nullptr) {
    if (!quantization->is_object()) {
      return fields.Wrong("quantization_config", "an object");
    }
    ASSIGN_OR_RETURN(config.matrices, ReadQuantization(*quantization));
  } else if (architecture.is_always_ternary) {
    config.matrices = HfMatrices::kMasters;
  } else {
    return absl::UnimplementedError(
        "config.json has no quantization_config: the matrices of this model "
        "are dense; Tern serves models whose matrices are ternary");
  }
  return config;
}

}  // namespace tern
