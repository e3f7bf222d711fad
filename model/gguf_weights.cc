#include "model/gguf_weights.h"

#include <cmath>
#include <cstring>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/types/optional.h"
#include "model/gguf_types.h"
#include "model/tensor_shapes.h"
#include "util/logging.h"
#include "util/status_macros.h"

namespace tern {
namespace {

absl::optional<DenseEncoding> DenseEncodingOf(const GgufTensor& tensor) {
  switch (static_cast<GgufType>(tensor.type)) {
    case GgufType::kF32:
      return DenseEncoding::kF32;
    case GgufType::kF16:
      return DenseEncoding::kF16;
    case GgufType::kBF16:
      return DenseEncoding::kBF16;
    case GgufType::kQ8_0:
      return DenseEncoding::kQ8_0;
    case GgufType::kQ6K:
      return DenseEncoding::kQ6K;
    case GgufType::kQ4K:
      return DenseEncoding::kQ4K;
    default:
      return absl::nullopt;
  }
}

absl::optional<TernaryEncoding> TernaryEncodingOf(const GgufTensor& tensor) {
  switch (static_cast<GgufType>(tensor.type)) {
    case GgufType::kI2S:
      return TernaryEncoding::kI2S;
    case GgufType::kTQ1_0:
      return TernaryEncoding::kTQ1_0;
    case GgufType::kTQ2_0:
      return TernaryEncoding::kTQ2_0;
    default:
      return absl::nullopt;
  }
}

absl::StatusOr<std::vector<float>> FindNorm(const GgufReader& file,
                                            absl::string_view name, int n) {
  ASSIGN_OR_RETURN(const GgufTensor* tensor,
                   FindShapedTensor(file, name, n, 0));
  const absl::optional<DenseEncoding> encoding = DenseEncodingOf(*tensor);
  if (!encoding.has_value()) {
    return absl::InvalidArgumentError(
        absl::StrCat("tensor ", name, " has type ", GgufTypeName(tensor->type),
                     "; Tern reads norms as F32, F16 or BF16"));
  }
  return ReadNorm(name, *encoding, tensor->data, n);
}

// The factor of a matrix: its `.scale` tensor, or 1.
absl::StatusOr<float> FindFactor(const GgufReader& file,
                                 const std::string& name) {
  if (file.FindTensor(name) == nullptr) return 1.0f;
  ASSIGN_OR_RETURN(const GgufTensor* tensor,
                   FindShapedTensor(file, name, 1, 0));
  if (tensor->type != static_cast<uint32_t>(GgufType::kF32)) {
    return absl::InvalidArgumentError(
        absl::StrCat("tensor ", name, " has type ", GgufTypeName(tensor->type),
                     "; Tern reads scales as F32"));
  }
  float factor;
  std::memcpy(&factor, tensor->data.data(), sizeof(factor));
  if (!std::isfinite(factor)) {
    return absl::InvalidArgumentError(
        absl::StrCat("tensor ", name, " is not finite"));
  }
  return factor;
}

absl::StatusOr<TernaryTensor> FindTernary(const GgufReader& file,
                                          const std::string& stem, int n_out,
                                          int n_in) {
  TernaryTensor ternary;
  ternary.name = stem + ".weight";
  ASSIGN_OR_RETURN(const GgufTensor* tensor,
                   FindShapedTensor(file, ternary.name, n_in, n_out));
  RETURN_IF_ERROR(CheckTernaryType(*tensor));
  ternary.encoding = *TernaryEncodingOf(*tensor);
  ternary.data = tensor->data;
  ternary.n_out = n_out;
  ternary.n_in = n_in;
  ASSIGN_OR_RETURN(const float factor, FindFactor(file, stem + ".scale"));
  RETURN_IF_ERROR(ReadStreamScale(factor, &ternary));
  return ternary;
}

absl::StatusOr<DenseTensor> FindDense(const GgufReader& file,
                                      absl::string_view name, int n_rows,
                                      int n_columns) {
  ASSIGN_OR_RETURN(const GgufTensor* tensor,
                   FindShapedTensor(file, name, n_columns, n_rows));
  const absl::optional<DenseEncoding> encoding = DenseEncodingOf(*tensor);
  if (!encoding.has_value()) {
    return absl::InvalidArgumentError(
        absl::StrCat("tensor ", name, " has type ", GgufTypeName(tensor->type),
                     "; Tern reads embeddings and heads as F32, F16, BF16, "
                     "Q8_0, Q6_K or Q4_K: convert the model with one of them"));
  }
  return DenseTensor{tensor->name, *encoding, tensor->data, n_rows, n_columns};
}

}  // namespace

absl::Status CheckTernaryType(const GgufTensor& tensor) {
  if (TernaryEncodingOf(tensor).has_value()) return absl::OkStatus();
  const std::string type = GgufTypeName(tensor.type);
  if (DenseEncodingOf(tensor).has_value()) {
    return absl::UnimplementedError(absl::StrCat(
        "tensor ", tensor.name, " has type ", type,
        ": the matrices of this model are dense; Tern serves models whose "
        "matrices are ternary, as I2_S, TQ1_0 or TQ2_0"));
  }
  return absl::UnimplementedError(absl::StrCat(
      "tensor ", tensor.name, " has type ", type,
      "; Tern reads ternary matrices as I2_S, TQ1_0 or TQ2_0: convert the "
      "model to I2_S"));
}

absl::StatusOr<LayerTensors> FindLayer(const GgufReader& file,
                                       const ModelConfig& config, int layer) {
  CHECK(layer >= 0 && layer < config.n_layers) << "layer " << layer;
  const std::string prefix = absl::StrCat("blk.", layer, ".");
  const int hidden = config.hidden_size;
  const auto norm = [&](absl::string_view name, int n) {
    return FindNorm(file, absl::StrCat(prefix, name, ".weight"), n);
  };
  const auto ternary = [&](absl::string_view name, int n_out, int n_in) {
    return FindTernary(file, absl::StrCat(prefix, name), n_out, n_in);
  };
  LayerTensors t;
  ASSIGN_OR_RETURN(t.attn_norm, norm("attn_norm", hidden));
  ASSIGN_OR_RETURN(t.ffn_norm, norm("ffn_norm", hidden));
  if (config.has_sub_norms) {
    ASSIGN_OR_RETURN(t.attn_sub_norm, norm("attn_sub_norm", config.q_size()));
    ASSIGN_OR_RETURN(t.ffn_sub_norm, norm("ffn_sub_norm", config.ffn_size));
  }
  ASSIGN_OR_RETURN(t.q, ternary("attn_q", config.q_size(), hidden));
  ASSIGN_OR_RETURN(t.k, ternary("attn_k", config.kv_size(), hidden));
  ASSIGN_OR_RETURN(t.v, ternary("attn_v", config.kv_size(), hidden));
  ASSIGN_OR_RETURN(t.o, ternary("attn_output", hidden, config.q_size()));
  ASSIGN_OR_RETURN(t.gate, ternary("ffn_gate", config.ffn_size, hidden));
  ASSIGN_OR_RETURN(t.up, ternary("ffn_up", config.ffn_size, hidden));
  ASSIGN_OR_RETURN(t.down, ternary("ffn_down", hidden, config.ffn_size));
  return t;
}

absl::StatusOr<DenseTensor> FindEmbedding(const GgufReader& file,
                                          const ModelConfig& config) {
  return FindDense(file, "token_embd.weight", config.vocab_size,
                   config.hidden_size);
}

absl::StatusOr<DenseTensor> FindHead(const GgufReader& file,
                                     const ModelConfig& config) {
  if (config.tied_head) return FindEmbedding(file, config);
  return FindDense(file, "output.weight", config.vocab_size,
                   config.hidden_size);
}

absl::StatusOr<std::vector<float>> FindOutputNorm(const GgufReader& file,
                                                  const ModelConfig& config) {
  return FindNorm(file, "output_norm.weight", config.hidden_size);
}

}  // namespace tern
