#include "model/weights.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "model/gguf_types.h"
#include "model/tensor_shapes.h"
#include "util/logging.h"
#include "util/status_macros.h"

namespace tern {
namespace {

// An I2_S tensor is one stream of blocks, whatever its rows: byte p of a block
// holds the elements p, 32 + p, 64 + p, 96 + p in bits 7:6, 5:4, 3:2, 1:0. One
// float32 scale follows the codes.
constexpr int64_t kBlockElements = 128;
constexpr int64_t kBlockBytes = 32;

bool IsType(const GgufTensor& tensor, GgufType type) {
  return tensor.type == static_cast<uint32_t>(type);
}

float HalfToFloat(uint16_t half) {
  const int exponent = half >> 10 & 0x1f;
  const int mantissa = half & 0x3ff;
  float magnitude;
  if (exponent == 0x1f) {
    magnitude = mantissa == 0 ? INFINITY : NAN;
  } else if (exponent == 0) {
    magnitude = std::ldexp(static_cast<float>(mantissa), -24);
  } else {
    magnitude = std::ldexp(static_cast<float>(mantissa + 1024), exponent - 25);
  }
  return (half & 0x8000) != 0 ? -magnitude : magnitude;
}

absl::StatusOr<std::vector<float>> FindNorm(const GgufReader& file,
                                            absl::string_view name, int n) {
  ASSIGN_OR_RETURN(const GgufTensor* tensor,
                   FindShapedTensor(file, name, n, 0));
  std::vector<float> values(n);
  if (IsType(*tensor, GgufType::kF32)) {
    std::memcpy(values.data(), tensor->data.data(), n * sizeof(float));
  } else if (IsType(*tensor, GgufType::kF16)) {
    for (int i = 0; i < n; ++i) {
      uint16_t half;
      std::memcpy(&half, tensor->data.data() + 2 * i, sizeof(half));
      values[i] = HalfToFloat(half);
    }
  } else {
    return absl::InvalidArgumentError(
        absl::StrCat("tensor ", name, " has type ", GgufTypeName(tensor->type),
                     "; Tern reads norms as F32 or F16"));
  }
  for (int i = 0; i < n; ++i) {
    if (!std::isfinite(values[i])) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor ", name, " is not finite at element ", i));
    }
  }
  return values;
}

absl::StatusOr<TernaryTensor> FindTernary(const GgufReader& file,
                                          absl::string_view name, int n_out,
                                          int n_in) {
  ASSIGN_OR_RETURN(const GgufTensor* tensor,
                   FindShapedTensor(file, name, n_in, n_out));
  if (!IsType(*tensor, GgufType::kI2S)) {
    return absl::InvalidArgumentError(
        absl::StrCat("tensor ", name, " has type ", GgufTypeName(tensor->type),
                     "; Tern reads ternary matrices as I2_S: convert the model "
                     "to I2_S"));
  }
  TernaryTensor ternary{tensor, n_out, n_in, 0.0f};
  const int64_t elements = int64_t{n_out} * n_in;
  std::memcpy(&ternary.scale, tensor->data.data() + elements / 4,
              sizeof(float));
  if (!std::isfinite(ternary.scale)) {
    return absl::InvalidArgumentError(
        absl::StrCat("the scale of tensor ", name, " is not finite"));
  }
  return ternary;
}

absl::StatusOr<DenseTensor> FindDense(const GgufReader& file,
                                      absl::string_view name, int n_rows,
                                      int n_columns) {
  ASSIGN_OR_RETURN(const GgufTensor* tensor,
                   FindShapedTensor(file, name, n_columns, n_rows));
  if (!IsType(*tensor, GgufType::kF32) && !IsType(*tensor, GgufType::kF16)) {
    return absl::InvalidArgumentError(
        absl::StrCat("tensor ", name, " has type ", GgufTypeName(tensor->type),
                     "; Tern reads embeddings and heads as F16 or F32: convert "
                     "the model with one of them"));
  }
  return DenseTensor{tensor, n_rows, n_columns};
}

inline uint8_t CodeAt(const uint8_t* stream, int64_t element) {
  const int64_t in_block = element % kBlockElements;
  const uint8_t byte =
      stream[element / kBlockElements * kBlockBytes + in_block % kBlockBytes];
  return byte >> (6 - 2 * (in_block / kBlockBytes)) & 3;
}

// Decodes whole blocks. True when a code 3 is among them. The loop over p has a
// fixed count, no branch, and arrays that do not overlap, so that compilers
// turn it into vectors.
bool DecodeBlocks(const uint8_t* __restrict in, int64_t n_blocks,
                  uint8_t* __restrict out) {
  uint8_t bad[kBlockBytes] = {};
  for (int64_t block = 0; block < n_blocks; ++block) {
    for (int p = 0; p < kBlockBytes; ++p) {
      const uint8_t byte = in[p];
      out[p] = byte >> 6;
      out[p + 32] = byte >> 4 & 3;
      out[p + 64] = byte >> 2 & 3;
      out[p + 96] = byte & 3;
      bad[p] |= byte & byte >> 1;
    }
    in += kBlockBytes;
    out += kBlockElements;
  }
  uint8_t any = 0;
  for (uint8_t lane : bad) any |= lane;
  return (any & 0x55) != 0;
}

bool DecodeSome(const uint8_t* stream, int64_t begin, int64_t end,
                uint8_t* out) {
  bool bad = false;
  for (int64_t i = begin; i < end; ++i) {
    const uint8_t code = CodeAt(stream, i);
    *out++ = code;
    bad |= code == 3;
  }
  return bad;
}

}  // namespace

absl::StatusOr<LayerTensors> FindLayer(const GgufReader& file,
                                       const ModelConfig& config, int layer) {
  CHECK(layer >= 0 && layer < config.n_layers) << "layer " << layer;
  const std::string prefix = absl::StrCat("blk.", layer, ".");
  const int hidden = config.hidden_size;
  const auto norm = [&](absl::string_view name, int n) {
    return FindNorm(file, absl::StrCat(prefix, name, ".weight"), n);
  };
  const auto ternary = [&](absl::string_view name, int n_out, int n_in) {
    return FindTernary(file, absl::StrCat(prefix, name, ".weight"), n_out,
                       n_in);
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

absl::Status DecodeTernaryRows(const TernaryTensor& tensor, int row_begin,
                               int row_end, uint8_t* codes) {
  DCHECK(0 <= row_begin && row_begin <= row_end && row_end <= tensor.n_out);
  const uint8_t* stream = tensor.tensor->data.data();
  const int64_t begin = int64_t{row_begin} * tensor.n_in;
  const int64_t end = int64_t{row_end} * tensor.n_in;
  const int64_t block_begin = std::min(
      end, (begin + kBlockElements - 1) / kBlockElements * kBlockElements);
  const int64_t block_end =
      std::max(block_begin, end / kBlockElements * kBlockElements);

  bool bad = DecodeSome(stream, begin, block_begin, codes);
  bad |= DecodeBlocks(stream + block_begin / kBlockElements * kBlockBytes,
                      (block_end - block_begin) / kBlockElements,
                      codes + (block_begin - begin));
  bad |= DecodeSome(stream, block_end, end, codes + (block_end - begin));
  if (!bad) return absl::OkStatus();
  const int64_t place =
      std::find(codes, codes + (end - begin), 3) - codes + begin;
  return absl::DataLossError(absl::StrCat(
      "tensor ", tensor.tensor->name, " holds a code that is no weight in row ",
      place / tensor.n_in, ", column ", place % tensor.n_in,
      ": the file is damaged; copy or download it again"));
}

}  // namespace tern
