#ifndef MODEL_MODEL_CONFIG_H_
#define MODEL_MODEL_CONFIG_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace tern {

// What stands between the gate and the down projection.
enum class Activation { kRelu2, kSilu };

// How RoPE pairs the elements of a head. A `llama` model is kNorm whatever it
// was read from: rows of q and k that are stored for the other pairing are put
// in this order when they are decoded (docs/formats.md).
enum class RopeKind { kNeox, kNorm };

// The shape of a model: everything the graph needs to know but the weights.
// A plain value, the same for every file format.
struct ModelConfig {
  std::string architecture;  // "bitnet-b1.58", "bitnet-25", "bitnet", "llama"
  std::string name;          // as its author calls it; may be empty
  int n_layers = 0;
  int hidden_size = 0;
  int ffn_size = 0;
  int n_heads = 0;
  int n_kv_heads = 0;  // divides n_heads
  int head_dim = 0;    // even; n_heads * head_dim need not be hidden_size
  int vocab_size = 0;
  int context_length = 0;
  double rope_theta = 10000.0;
  RopeKind rope_kind = RopeKind::kNeox;
  float norm_eps = 1e-5f;
  Activation activation = Activation::kRelu2;
  bool has_sub_norms = true;  // attn_sub_norm, ffn_sub_norm
  bool tied_head = true;      // the head is the embedding

  int q_size() const { return n_heads * head_dim; }
  int kv_size() const { return n_kv_heads * head_dim; }
};

// Bounds of what the kernels and caches are made for; no known model comes near
// them.
inline constexpr int kLayersMax = 1024;
inline constexpr int kHeadsMax = 1024;
inline constexpr int kHeadDimMax = 256;
inline constexpr int kWidthMax = (1 << 17) - 1;  // 127 * width < 2^24
inline constexpr int kWidthMultiple = 16;        // columns of a packed block
inline constexpr int kVocabMax = 1 << 22;
inline constexpr int kContextMax = 1 << 24;

// INVALID_ARGUMENT, naming `name`, unless `width` can be the columns of a
// ternary matrix.
absl::Status CheckWidth(absl::string_view name, int64_t width);

// INVALID_ARGUMENT unless `head_dim` is even and in [2, kHeadDimMax].
absl::Status CheckHeadDim(int head_dim);

}  // namespace tern

#endif  // MODEL_MODEL_CONFIG_H_
