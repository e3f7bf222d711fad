#ifndef TESTS_TESTING_TINY_MODEL_H_
#define TESTS_TESTING_TINY_MODEL_H_

#include <cstdint>
#include <string>

#include "tests/testing/gguf_builder.h"
#include "tests/testing/safetensors_builder.h"

namespace tern {
namespace testing {

// A small model of random ternary weights, complete with a tokenizer: what runs
// in tests in place of a trained one. One set of options gives one file, byte
// for byte, on every machine, for ever: golden tests stand on it.
//
// Scales are such that activations stay near unit size through all layers and
// logits have a standard deviation of about 3, so that greedy decoding wanders
// and sampling has something to choose from.
// Scales of the ternary matrices.
enum class TinyScales {
  kAny,     // any float32
  kHalf,    // float16 values whose reciprocal has them for its own, in float32:
            // what every format can hold
  kMaster,  // those that come of rounding bfloat16 master weights
};

struct TinyModelOptions {
  std::string architecture = "bitnet-b1.58";
  int n_layers = 2;
  int hidden_size = 64;  // a multiple of 16
  int ffn_size = 128;    // a multiple of 16
  int n_heads = 4;
  int n_kv_heads = 2;
  int head_dim = 16;
  int vocab_size = 320;  // at least 258: 256 bytes, merges, BOS, EOS
  int context_length = 256;
  bool tied_head = true;        // without an output.weight of its own
  bool f32_embedding = false;   // embedding and head in F32 instead of F16
  bool bf16_embedding = false;  // in BF16
  // Or kTQ1_0, kTQ2_0, for matrices with rows of a multiple of 256 weights.
  uint32_t matrix_type = GgufBuilder::kI2S;
  TinyScales scales = TinyScales::kAny;
  bool scale_tensors = false;  // scales in tensors of their own
  bool add_eot = false;        // the last merge gives way to eot_spelling
  std::string eot_spelling = "<|eot_id|>";
  uint64_t seed = 1;
};

// The model as a builder, to be changed before Build(). Token ids: the 256 byte
// values, the merges, then <|begin_of_text|> and <|end_of_text|>. Every matrix
// needs n_out * n_in % 128 == 0.
GgufBuilder TinyModel(const TinyModelOptions& options);

// The same as the bytes of a file.
Bytes TinyModelBytes(const TinyModelOptions& options);

// How a safetensors model holds its matrices.
enum class TinyPacking { kPacked, kPackedReciprocal, kMasters };

// The same model as safetensors. Architectures bitnet-b1.58, bitnet and llama;
// q and k of the last have the rows of a head in the other order
// (docs/formats.md).
// kMasters needs scales kMaster, kPackedReciprocal needs kHalf.
struct TinySafetensors {
  std::string config_json;
  std::string tokenizer_json;
  SafetensorsBuilder tensors;
};
TinySafetensors TinySafetensorsModel(const TinyModelOptions& options,
                                     TinyPacking packing);

// Writes the model to a new file in the test's temporary directory and returns
// its path. The caller removes it, or leaves it to the test runner.
std::string WriteTinyModel(const TinyModelOptions& options);

// Writes a safetensors model to a new directory there, with its tokenizer, its
// tensors spread over `n_files` files, and returns the directory's path.
std::string WriteTinySafetensors(const TinySafetensors& model, int n_files);

// Writes any bytes there.
std::string WriteTempFile(absl::Span<const uint8_t> bytes);

}  // namespace testing
}  // namespace tern

#endif  // TESTS_TESTING_TINY_MODEL_H_
