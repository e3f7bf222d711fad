#ifndef MODEL_MODEL_CONFIG_H_
#define MODEL_MODEL_CONFIG_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "model/gguf_reader.h"

namespace tern {

// What stands between the gate and the down projection.
enum class Activation { kRelu2, kSilu };

// How RoPE pairs the elements of a head.
enum class RopeKind { kNeox, kNorm };

// The shape of a model: everything the graph needs to know but the weights.
// A plain value.
struct ModelConfig {
  std::string architecture;  // "bitnet-b1.58", "bitnet-25"
  std::string name;          // general.name; may be empty
  int n_layers = 0;
  int hidden_size = 0;
  int ffn_size = 0;
  int n_heads = 0;
  int n_kv_heads = 0;  // divides n_heads
  int head_dim = 0;    // even
  int vocab_size = 0;
  int context_length = 0;
  double rope_theta = 10000.0;
  RopeKind rope_kind = RopeKind::kNeox;
  float norm_eps = 1e-5f;
  Activation activation = Activation::kRelu2;
  bool has_sub_norms = true;   // attn_sub_norm, ffn_sub_norm
  bool tied_head = true;       // the head is token_embd.weight

  int q_size() const { return n_heads * head_dim; }
  int kv_size() const { return n_kv_heads * head_dim; }
};

// Reads the configuration of a file and checks it against the shapes of its
// tensors. INVALID_ARGUMENT names the key or tensor, what it is and what it
// should be; UNIMPLEMENTED an architecture that Tern does not serve, with those
// it does.
absl::StatusOr<ModelConfig> ReadModelConfig(const GgufReader& file);

}  // namespace tern

#endif  // MODEL_MODEL_CONFIG_H_
