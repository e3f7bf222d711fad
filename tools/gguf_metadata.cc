#include "tools/gguf_metadata.h"

#include <string>

#include "model/gguf_reader.h"

namespace tern {

void SetModelKeys(const ModelConfig& config, TernaryFormat type,
                  GgufHeader* header) {
  const ModelConfig& c = config;
  const std::string a = c.architecture + ".";
  header->SetString("general.architecture", c.architecture);
  header->SetString("general.name", c.name);
  header->SetUint32("general.file_type", GgufFileTypeOf(type));
  header->SetUint32("general.quantization_version", 2);
  header->SetUint32(a + "vocab_size", c.vocab_size);
  header->SetUint32(a + "context_length", c.context_length);
  header->SetUint32(a + "embedding_length", c.hidden_size);
  header->SetUint32(a + "block_count", c.n_layers);
  header->SetUint32(a + "feed_forward_length", c.ffn_size);
  header->SetUint32(a + "rope.dimension_count", c.head_dim);
  header->SetUint32(a + "attention.head_count", c.n_heads);
  header->SetUint32(a + "attention.head_count_kv", c.n_kv_heads);
  if (c.q_size() != c.hidden_size) {
    header->SetUint32(a + "attention.key_length", c.head_dim);
    header->SetUint32(a + "attention.value_length", c.head_dim);
  }
  header->SetFloat(a + "attention.layer_norm_rms_epsilon", c.norm_eps);
  header->SetFloat(a + "rope.freq_base", static_cast<float>(c.rope_theta));
}

uint32_t GgufTypeOf(TernaryFormat format) {
  switch (format) {
    case TernaryFormat::kI2S:
      return static_cast<uint32_t>(GgufType::kI2S);
    case TernaryFormat::kTQ1_0:
      return static_cast<uint32_t>(GgufType::kTQ1_0);
    case TernaryFormat::kTQ2_0:
      break;
  }
  return static_cast<uint32_t>(GgufType::kTQ2_0);
}

uint32_t GgufFileTypeOf(TernaryFormat format) {
  switch (format) {
    case TernaryFormat::kI2S:
      return 40;
    case TernaryFormat::kTQ1_0:
      return 36;
    case TernaryFormat::kTQ2_0:
      break;
  }
  return 37;
}

uint32_t GgufTypeOf(DenseEncoding encoding) {
  switch (encoding) {
    case DenseEncoding::kF32:
      return static_cast<uint32_t>(GgufType::kF32);
    case DenseEncoding::kF16:
      return static_cast<uint32_t>(GgufType::kF16);
    case DenseEncoding::kBF16:
      return static_cast<uint32_t>(GgufType::kBF16);
    case DenseEncoding::kQ8_0:
      return static_cast<uint32_t>(GgufType::kQ8_0);
    case DenseEncoding::kQ6K:
      return static_cast<uint32_t>(GgufType::kQ6K);
    case DenseEncoding::kQ4K:
      break;
  }
  return static_cast<uint32_t>(GgufType::kQ4K);
}

}  // namespace tern
