#include "tools/presets.h"

namespace tern {
namespace {

struct Shape {
  int n_layers, hidden_size, ffn_size, n_heads, n_kv_heads, head_dim;
  int vocab_size, context_length;
  double rope_theta;
};

ModelConfig WithShape(const char* architecture, const Shape& shape) {
  ModelConfig config;
  config.architecture = architecture;
  config.n_layers = shape.n_layers;
  config.hidden_size = shape.hidden_size;
  config.ffn_size = shape.ffn_size;
  config.n_heads = shape.n_heads;
  config.n_kv_heads = shape.n_kv_heads;
  config.head_dim = shape.head_dim;
  config.vocab_size = shape.vocab_size;
  config.context_length = shape.context_length;
  config.rope_theta = shape.rope_theta;
  config.norm_eps = 1e-5f;
  return config;
}

// Squared ReLU, sub-norms, tied head.
ModelConfig BitNet158(const Shape& shape) {
  return WithShape("bitnet-b1.58", shape);
}

// SiLU, sub-norms, tied head.
ModelConfig BitNet(const Shape& shape) {
  ModelConfig config = WithShape("bitnet", shape);
  config.activation = Activation::kSilu;
  return config;
}

// SiLU, no sub-norms, a head of its own.
ModelConfig Llama(const Shape& shape) {
  ModelConfig config = WithShape("llama", shape);
  config.activation = Activation::kSilu;
  config.rope_kind = RopeKind::kNorm;
  config.has_sub_norms = false;
  config.tied_head = false;
  return config;
}

}  // namespace

const std::vector<Preset>& Presets() {
  static const std::vector<Preset>& presets = *new std::vector<Preset>{
      {"nano", "2 layers of width 512, for tests",
       BitNet158({2, 512, 1024, 8, 2, 64, 4352, 512, 5e5})},
      {"tiny", "4 layers of width 512 and a full vocabulary",
       BitNet158({4, 512, 1536, 8, 2, 64, 128256, 4096, 5e5})},
      {"700m", "bitnet_b1_58-large",
       BitNet({24, 1536, 4096, 16, 16, 96, 32002, 2048, 1e4})},
      {"2b4t", "BitNet b1.58 2B-4T",
       BitNet158({30, 2560, 6912, 20, 5, 128, 128256, 4096, 5e5})},
      {"3b", "bitnet_b1_58-3B",
       BitNet({26, 3200, 8640, 32, 32, 100, 32002, 2048, 1e4})},
      {"7b", "the width of Llama 2 7B",
       Llama({32, 4096, 11008, 32, 32, 128, 128256, 4096, 5e5})},
      {"8b", "Llama3-8B-1.58",
       Llama({32, 4096, 14336, 32, 8, 128, 128256, 8192, 5e5})},
      {"13b", "the width of Llama 2 13B",
       Llama({40, 5120, 13824, 40, 40, 128, 128256, 4096, 5e5})},
      {"70b", "the width of Llama 3 70B",
       Llama({80, 8192, 28672, 64, 8, 128, 128256, 8192, 5e5})},
  };
  return presets;
}

const Preset* FindPreset(absl::string_view name) {
  for (const Preset& preset : Presets()) {
    if (name == preset.name) return &preset;
  }
  return nullptr;
}

}  // namespace tern
