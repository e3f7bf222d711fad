#include "tests/testing/tiny_model.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <unordered_set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "kernels/float16.h"
#include "model/ternary_codec.h"
#include "nlohmann/json.hpp"
#include "util/logging.h"

namespace tern {
namespace testing {
namespace {

// SplitMix64: each call one step of a Weyl sequence, mixed. The library's
// distributions differ between implementations, so all of it is our own.
class Prng {
 public:
  explicit Prng(uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15u + 1) {}

  uint64_t Next() {
    uint64_t z = state_ += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
  }

  // In [0, 1), a multiple of 2^-24.
  float Uniform() { return static_cast<float>(Next() >> 40) * 0x1p-24f; }

  // Near enough to a standard normal, by exact sums: no libm, no rounding.
  float Normal() {
    int64_t sum = 0;
    for (int i = 0; i < 6; ++i) {
      const uint64_t bits = Next();
      sum += static_cast<int64_t>(bits & 0xffff) +
             static_cast<int64_t>(bits >> 16 & 0xffff);
    }
    return static_cast<float>(sum - 6 * 65535) * 0x1p-16f;
  }

  // A weight + 1; zero weights with probability 0.4.
  uint8_t Code() {
    const uint32_t draw = Next() % 10;
    return draw < 4 ? 1 : draw < 7 ? 0 : 2;
  }

 private:
  uint64_t state_;
};

constexpr char kSplitPattern[] =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|)"
    R"( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

constexpr float kZeroShare = 0.4f;
constexpr float kLogitDeviation = 3.0f;
constexpr float kQueryKeyGain = 1.5f;

std::vector<float> RandomNorm(int n, Prng* prng) {
  std::vector<float> values(n);
  for (float& value : values) value = 1.0f + 0.1f * prng->Normal();
  return values;
}

struct Ternary {
  int n_out;
  int n_in;
  std::vector<uint8_t> codes;
  float scale;
};

// What the masters of a matrix are where they are not 0.
constexpr float kMasterWeight = 0.0625f;

// The nearest scale above `scale` that TinyScales::kHalf allows.
float HalfScale(float scale) {
  for (uint16_t half = FloatToHalf(scale);; ++half) {
    const float value = HalfToFloat(half);
    if (1.0f / (1.0f / value) == value) return value;
  }
}

// As docs/formats.md has it; all of it but the divisions is exact.
float MasterScale(const std::vector<uint8_t>& codes) {
  double sum = 0;
  for (uint8_t code : codes) sum += code == 1 ? 0 : kMasterWeight;
  const float mean = static_cast<float>(sum / codes.size());
  return 1.0f / (1.0f / mean);
}

// Inputs of unit mean square come out with a root mean square of about `gain`.
Ternary RandomTernary(int n_out, int n_in, float gain, TinyScales scales,
                      Prng* prng) {
  Ternary ternary = {n_out, n_in, {}, 0};
  ternary.codes.resize(static_cast<size_t>(n_out) * n_in);
  for (uint8_t& code : ternary.codes) code = prng->Code();
  const float unit = 1.0f / std::sqrt(n_in * (1.0f - kZeroShare));
  ternary.scale = gain * unit * (1.0f + 0.2f * prng->Uniform());
  if (scales == TinyScales::kHalf) ternary.scale = HalfScale(ternary.scale);
  if (scales == TinyScales::kMaster) {
    ternary.scale = MasterScale(ternary.codes);
  }
  return ternary;
}

std::vector<float> RandomDense(int n_rows, int n_columns, Prng* prng) {
  const float deviation =
      kLogitDeviation / std::sqrt(static_cast<float>(n_columns));
  std::vector<float> values(static_cast<size_t>(n_rows) * n_columns);
  for (float& value : values) value = deviation * prng->Normal();
  return values;
}

Bytes PackDense(const TinyModelOptions& options,
                const std::vector<float>& values) {
  return options.f32_embedding    ? PackF32(values)
         : options.bf16_embedding ? PackBF16(values)
                                  : PackF16(values);
}

// The model's tensors by their GGUF names, in the order of a GGUF file.
struct Content {
  struct Tensor {
    std::string name;  // without ".weight"
    std::vector<float> norm;
    std::vector<float> dense;
    Ternary ternary;
  };
  std::vector<Tensor> tensors;
};

Content RandomContent(const TinyModelOptions& options) {
  const int hidden = options.hidden_size;
  const int ffn = options.ffn_size;
  const int q_size = options.n_heads * options.head_dim;
  const int kv_size = options.n_kv_heads * options.head_dim;
  const bool has_sub_norms = options.architecture != "llama";
  Content content;
  Prng prng(options.seed);
  const auto dense = [&](const std::string& name) {
    content.tensors.push_back(
        {name, {}, RandomDense(options.vocab_size, hidden, &prng), {}});
  };
  const auto norm = [&](const std::string& name, int n) {
    content.tensors.push_back({name, RandomNorm(n, &prng), {}, {}});
  };
  const auto ternary = [&](const std::string& name, int n_out, int n_in,
                           float gain) {
    content.tensors.push_back(
        {name,
         {},
         {},
         RandomTernary(n_out, n_in, gain, options.scales, &prng)});
  };

  // What each sub-layer adds: together they outweigh the embedding, or a tied
  // head would repeat the current token for ever.
  const float residual_gain =
      kLogitDeviation / std::sqrt(2.0f * options.n_layers);
  dense("token_embd");
  for (int layer = 0; layer < options.n_layers; ++layer) {
    const std::string b = absl::StrCat("blk.", layer, ".");
    norm(b + "attn_norm", hidden);
    ternary(b + "ffn_down", hidden, ffn, residual_gain);
    if (has_sub_norms) norm(b + "ffn_sub_norm", ffn);
    ternary(b + "ffn_gate", ffn, hidden, 1.0f);
    ternary(b + "ffn_up", ffn, hidden, 1.0f);
    norm(b + "ffn_norm", hidden);
    if (has_sub_norms) norm(b + "attn_sub_norm", q_size);
    ternary(b + "attn_k", kv_size, hidden, kQueryKeyGain);
    ternary(b + "attn_output", hidden, q_size, residual_gain);
    ternary(b + "attn_q", q_size, hidden, kQueryKeyGain);
    ternary(b + "attn_v", kv_size, hidden, 1.0f);
  }
  norm("output_norm", hidden);
  if (!options.tied_head) dense("output");
  return content;
}

Bytes PackTernary(uint32_t type, const std::vector<uint8_t>& codes,
                  float scale) {
  const TernaryFormat format = type == GgufBuilder::kI2S ? TernaryFormat::kI2S
                               : type == GgufBuilder::kTQ1_0
                                   ? TernaryFormat::kTQ1_0
                                   : TernaryFormat::kTQ2_0;
  const int64_t n = static_cast<int64_t>(codes.size());
  Bytes out(TernaryBytes(format, n));
  EncodeTernary(format, codes.data(), n, scale, out.data());
  return out;
}

// A byte in the alphabet that byte-level BPE spells tokens with.
std::string Spelling(int byte) {
  int code = byte;
  const auto printable = [](int b) {
    return (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
  };
  if (!printable(byte)) {
    code = 256;
    for (int b = 0; b < byte; ++b) code += !printable(b);
  }
  if (code < 128) return std::string(1, static_cast<char>(code));
  return {static_cast<char>(0xc0 | code >> 6),
          static_cast<char>(0x80 | (code & 63))};
}

// The first merges are common ones of English, so that text shortens a little;
// then pairs of what is there, in a fixed order.
std::vector<std::pair<std::string, std::string>> Merges(int n) {
  const std::string space = Spelling(' ');
  const std::pair<std::string, std::string> common[] = {
      {space, "t"},  {"h", "e"},          {"i", "n"},    {"r", "e"},
      {"o", "n"},    {space + "t", "he"}, {"e", "r"},    {space, "s"},
      {"a", "t"},    {space, "w"},        {space, "o"},  {"e", "n"},
      {space, "c"},  {"i", "t"},          {"i", "s"},    {"a", "n"},
      {"o", "r"},    {"e", "s"},          {space, "b"},  {"e", "d"},
      {space, "f"},  {"in", "g"},         {space, "p"},  {"o", "u"},
      {space, "an"}, {"a", "l"},          {"a", "r"},    {space + "t", "o"},
      {space, "m"},  {space + "o", "f"},  {space, "in"}, {space, "d"},
      {space, "h"},  {space + "an", "d"}};
  std::vector<std::pair<std::string, std::string>> merges;
  std::unordered_set<std::string> known;
  std::vector<std::string> words;
  for (char c = 'a'; c <= 'z'; ++c) words.emplace_back(1, c);
  const auto add = [&](const std::string& left, const std::string& right) {
    if (static_cast<int>(merges.size()) == n) return;
    if (!known.insert(left + right).second) return;
    merges.emplace_back(left, right);
    words.push_back(left + right);
  };
  for (const auto& merge : common) add(merge.first, merge.second);
  for (size_t i = 0; static_cast<int>(merges.size()) < n; ++i) {
    for (size_t j = 0; j <= i; ++j) {
      // Copies: add() moves `words`.
      const std::string left = words[i], right = words[j];
      add(left, right);
      add(right, left);
    }
  }
  return merges;
}

struct Vocabulary {
  std::vector<std::string> tokens;  // control tokens are the last ones
  std::vector<std::string> merges;
  int n_control;
};

Vocabulary MakeVocabulary(const TinyModelOptions& options) {
  Vocabulary v;
  v.n_control = options.add_eot ? 3 : 2;
  for (int byte = 0; byte < 256; ++byte) v.tokens.push_back(Spelling(byte));
  for (const auto& merge : Merges(options.vocab_size - 256 - v.n_control)) {
    v.merges.push_back(absl::StrCat(merge.first, " ", merge.second));
    v.tokens.push_back(merge.first + merge.second);
  }
  if (options.add_eot) v.tokens.push_back(options.eot_spelling);
  v.tokens.push_back("<|begin_of_text|>");
  v.tokens.push_back("<|end_of_text|>");
  return v;
}

void AddTokenizer(const TinyModelOptions& options, GgufBuilder* builder) {
  const Vocabulary v = MakeVocabulary(options);
  std::vector<int32_t> types(v.tokens.size() - v.n_control, 1);
  types.resize(v.tokens.size(), 3);
  const uint32_t bos = static_cast<uint32_t>(v.tokens.size()) - 2;
  builder->SetString("tokenizer.ggml.model", "gpt2")
      .SetString("tokenizer.ggml.pre", "llama-bpe")
      .SetStringArray("tokenizer.ggml.tokens", v.tokens)
      .SetInt32Array("tokenizer.ggml.token_type", types)
      .SetStringArray("tokenizer.ggml.merges", v.merges)
      .SetUint32("tokenizer.ggml.bos_token_id", bos)
      .SetUint32("tokenizer.ggml.eos_token_id", bos + 1)
      .SetBool("tokenizer.ggml.add_bos_token", true);
}

// The same tokenizer in the form of Llama 3's tokenizer.json.
std::string TokenizerJson(const TinyModelOptions& options) {
  using Json = nlohmann::json;
  const Vocabulary v = MakeVocabulary(options);
  const size_t n_plain = v.tokens.size() - v.n_control;
  Json vocab = Json::object(), added = Json::array();
  for (size_t id = 0; id < v.tokens.size(); ++id) {
    if (id < n_plain) {
      vocab[v.tokens[id]] = id;
    } else {
      added.push_back({{"id", id},
                       {"content", v.tokens[id]},
                       {"single_word", false},
                       {"lstrip", false},
                       {"rstrip", false},
                       {"normalized", false},
                       {"special", true}});
    }
  }
  const auto byte_level = [](bool use_regex) {
    return Json{{"type", "ByteLevel"},
                {"add_prefix_space", false},
                {"trim_offsets", true},
                {"use_regex", use_regex}};
  };
  const std::string bos = v.tokens[v.tokens.size() - 2];
  return Json{{"added_tokens", added},
              {"normalizer", nullptr},
              {"pre_tokenizer",
               {{"type", "Sequence"},
                {"pretokenizers",
                 {{{"type", "Split"},
                   {"pattern", {{"Regex", kSplitPattern}}},
                   {"behavior", "Isolated"},
                   {"invert", false}},
                  byte_level(false)}}}},
              {"post_processor",
               {{"type", "TemplateProcessing"},
                {"single",
                 {{{"SpecialToken", {{"id", bos}, {"type_id", 0}}}},
                  {{"Sequence", {{"id", "A"}, {"type_id", 0}}}}}},
                {"special_tokens",
                 {{bos,
                   {{"id", bos},
                    {"ids", Json::array({v.tokens.size() - 2})},
                    {"tokens", Json::array({bos})}}}}}}},
              {"decoder", byte_level(true)},
              {"model",
               {{"type", "BPE"},
                {"dropout", nullptr},
                {"unk_token", nullptr},
                {"ignore_merges", true},
                {"vocab", vocab},
                {"merges", v.merges}}}}
      .dump();
}

}  // namespace

GgufBuilder TinyModel(const TinyModelOptions& options) {
  CHECK(options.vocab_size >= 258 + (options.add_eot ? 1 : 0));
  const std::string& a = options.architecture;
  const int hidden = options.hidden_size;
  const int ffn = options.ffn_size;

  GgufBuilder builder;
  builder.SetString("general.architecture", a)
      .SetString("general.name", absl::StrCat("tiny-", options.seed))
      .SetUint32("general.file_type", 40)
      .SetUint32(a + ".vocab_size", options.vocab_size)
      .SetUint32(a + ".context_length", options.context_length)
      .SetUint32(a + ".embedding_length", hidden)
      .SetUint32(a + ".block_count", options.n_layers)
      .SetUint32(a + ".feed_forward_length", ffn)
      .SetUint32(a + ".attention.head_count", options.n_heads)
      .SetUint32(a + ".attention.head_count_kv", options.n_kv_heads)
      .SetUint32(a + ".rope.dimension_count", options.head_dim)
      .SetFloat(a + ".rope.freq_base", 10000.0f)
      .SetFloat(a + ".attention.layer_norm_rms_epsilon", 1e-5f);
  if (options.head_dim * options.n_heads != hidden) {
    builder.SetUint32(a + ".attention.key_length", options.head_dim)
        .SetUint32(a + ".attention.value_length", options.head_dim);
  }
  AddTokenizer(options, &builder);

  for (const Content::Tensor& tensor : RandomContent(options).tensors) {
    const std::string name = tensor.name + ".weight";
    const auto width = [](int n) { return static_cast<uint64_t>(n); };
    if (!tensor.norm.empty()) {
      builder.AddTensor(name, {tensor.norm.size()}, GgufBuilder::kF32,
                        PackF32(tensor.norm));
    } else if (!tensor.dense.empty()) {
      builder.AddTensor(name, {width(hidden), width(options.vocab_size)},
                        options.f32_embedding    ? GgufBuilder::kF32
                        : options.bf16_embedding ? GgufBuilder::kBF16
                                                 : GgufBuilder::kF16,
                        PackDense(options, tensor.dense));
    } else {
      const Ternary& t = tensor.ternary;
      const float scale = options.scale_tensors ? 1.0f : t.scale;
      // Blocks of the other types lie within rows.
      const uint32_t type =
          t.n_in % 256 == 0 ? options.matrix_type : GgufBuilder::kI2S;
      builder.AddTensor(name, {width(t.n_in), width(t.n_out)}, type,
                        PackTernary(type, t.codes, scale));
      if (options.scale_tensors) {
        builder.AddTensor(tensor.name + ".scale", {1}, GgufBuilder::kF32,
                          PackF32({t.scale}));
      }
    }
  }
  return builder;
}

Bytes TinyModelBytes(const TinyModelOptions& options) {
  return TinyModel(options).Build();
}

namespace {

// The name that a tensor of a GGUF file has in safetensors.
std::string HfName(const std::string& name, bool is_bitnet) {
  if (name == "token_embd") return "model.embed_tokens";
  if (name == "output_norm") return "model.norm";
  if (name == "output") return "lm_head";
  static const auto* const names = new std::map<std::string, std::string>{
      {"attn_norm", "input_layernorm"},
      {"ffn_norm", "post_attention_layernorm"},
      {"attn_sub_norm", "self_attn.attn_sub_norm"},
      {"ffn_sub_norm", "mlp.ffn_sub_norm"},
      {"attn_q", "self_attn.q_proj"},
      {"attn_k", "self_attn.k_proj"},
      {"attn_v", "self_attn.v_proj"},
      {"attn_output", "self_attn.o_proj"},
      {"ffn_gate", "mlp.gate_proj"},
      {"ffn_up", "mlp.up_proj"},
      {"ffn_down", "mlp.down_proj"}};
  const size_t dot = name.find('.', 4);  // of "blk.7.attn_q"
  const std::string stem = name.substr(dot + 1);
  std::string hf_stem = names->at(stem);
  if (is_bitnet && stem == "attn_sub_norm") hf_stem = "self_attn.inner_attn_ln";
  if (is_bitnet && stem == "ffn_sub_norm") hf_stem = "mlp.ffn_layernorm";
  return absl::StrCat("model.layers.", name.substr(4, dot - 4), ".", hf_stem);
}

// Rows of each head pair by pair become first halves, then second halves.
std::vector<uint8_t> Unpaired(const Ternary& t, int head_dim) {
  std::vector<uint8_t> out(t.codes.size());
  for (int row = 0; row < t.n_out; ++row) {
    const int head = row / head_dim;
    const int pair = row % head_dim / 2;
    const int to = head * head_dim + row % 2 * (head_dim / 2) + pair;
    std::copy_n(&t.codes[static_cast<size_t>(row) * t.n_in], t.n_in,
                &out[static_cast<size_t>(to) * t.n_in]);
  }
  return out;
}

const char* Quantization(TinyPacking packing) {
  switch (packing) {
    case TinyPacking::kPacked:
      return R"({"quant_method":"bitnet","linear_class":"autobitlinear",)"
             R"("quantization_mode":"offline","modules_to_not_convert":null})";
    case TinyPacking::kPackedReciprocal:
      return R"({"quant_method":"bitnet","modules_to_not_convert":["lm_head"]})";
    case TinyPacking::kMasters:
      return R"({"quant_method":"bitnet","linear_class":"autobitlinear",)"
             R"("quantization_mode":"online"})";
  }
  return "";
}

}  // namespace

TinySafetensors TinySafetensorsModel(const TinyModelOptions& options,
                                     TinyPacking packing) {
  const bool is_llama = options.architecture == "llama";
  const bool is_bitnet = options.architecture == "bitnet";
  TinySafetensors model;
  model.config_json = absl::StrCat(
      R"({"architectures":[")",
      is_llama    ? "LlamaForCausalLM"
      : is_bitnet ? "BitnetForCausalLM"
                  : "BitNetForCausalLM",
      R"("],"hidden_act":")", is_llama || is_bitnet ? "silu" : "relu2",
      R"(","hidden_size":)", options.hidden_size, R"(,"intermediate_size":)",
      options.ffn_size, R"(,"num_hidden_layers":)", options.n_layers,
      R"(,"num_attention_heads":)", options.n_heads,
      R"(,"num_key_value_heads":)", options.n_kv_heads, R"(,"head_dim":)",
      options.head_dim, R"(,"vocab_size":)", options.vocab_size,
      R"(,"max_position_embeddings":)", options.context_length,
      R"(,"rms_norm_eps":1e-05,"rope_theta":10000.0,"rope_scaling":null,)",
      R"("tie_word_embeddings":)", options.tied_head ? "true" : "false",
      R"(,"quantization_config":)", Quantization(packing), "}");

  model.tokenizer_json = TokenizerJson(options);
  for (const Content::Tensor& tensor : RandomContent(options).tensors) {
    const std::string name = HfName(tensor.name, is_bitnet);
    if (!tensor.norm.empty()) {
      model.tensors.AddTensor(name + ".weight", "F32",
                              {static_cast<int64_t>(tensor.norm.size())},
                              PackF32(tensor.norm));
      continue;
    }
    if (!tensor.dense.empty()) {
      model.tensors.AddTensor(name + ".weight",
                              options.f32_embedding    ? "F32"
                              : options.bf16_embedding ? "BF16"
                                                       : "F16",
                              {options.vocab_size, options.hidden_size},
                              PackDense(options, tensor.dense));
      continue;
    }
    const Ternary& t = tensor.ternary;
    const bool is_rotated =
        absl::EndsWith(name, "q_proj") || absl::EndsWith(name, "k_proj");
    const std::vector<uint8_t> codes =
        is_llama && is_rotated ? Unpaired(t, options.head_dim) : t.codes;
    if (packing == TinyPacking::kMasters) {
      CHECK(options.scales == TinyScales::kMaster);
      std::vector<float> masters;
      for (uint8_t code : codes) masters.push_back(kMasterWeight * (code - 1));
      model.tensors.AddTensor(name + ".weight", "BF16", {t.n_out, t.n_in},
                              PackBF16(masters));
      continue;
    }
    model.tensors.AddTensor(name + ".weight", "U8", {t.n_out / 4, t.n_in},
                            PackRows(codes, t.n_out, t.n_in));
    const bool is_reciprocal = packing == TinyPacking::kPackedReciprocal;
    CHECK(!is_reciprocal || options.scales == TinyScales::kHalf);
    model.tensors.AddTensor(
        name + ".weight_scale", "F32", {1},
        PackF32({is_reciprocal ? 1.0f / t.scale : t.scale}));
  }
  return model;
}

std::string WriteTinySafetensors(const TinySafetensors& model, int n_files) {
  const char* root = std::getenv("TEST_TMPDIR");
  std::string directory =
      absl::StrCat(root != nullptr ? root : "/tmp", "/tern_model_XXXXXX");
  CHECK(mkdtemp(&directory[0]) != nullptr) << directory;
  const auto write = [&](const std::string& name, absl::string_view text) {
    std::ofstream out(absl::StrCat(directory, "/", name), std::ios::binary);
    out.write(text.data(), static_cast<std::streamsize>(text.size()));
    CHECK(out.flush().good()) << name;
  };
  write("config.json", model.config_json);
  write("tokenizer.json", model.tokenizer_json);
  write("tokenizer_config.json", R"({"eos_token":"<|end_of_text|>"})");
  std::vector<SafetensorsBuilder> files(n_files);
  std::string weight_map;
  const auto file_name = [&](int file) {
    return n_files == 1 ? std::string("model.safetensors")
                        : absl::StrFormat("model-%05d-of-%05d.safetensors",
                                          file + 1, n_files);
  };
  int n_tensors = 0;
  for (const SafetensorsBuilder::Tensor& t : model.tensors.tensors()) {
    const int file = n_tensors++ % n_files;
    files[file].AddTensor(t.name, t.dtype, t.shape, t.data);
    absl::StrAppend(&weight_map, weight_map.empty() ? "" : ",", "\"", t.name,
                    "\":\"", file_name(file), "\"");
  }
  for (int file = 0; file < n_files; ++file) {
    const Bytes bytes = files[file].Build();
    write(file_name(file),
          {reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  }
  if (n_files > 1) {
    write("model.safetensors.index.json",
          absl::StrCat("{\"weight_map\":{", weight_map, "}}"));
  }
  return directory;
}

std::string WriteTempFile(absl::Span<const uint8_t> bytes) {
  const char* directory = std::getenv("TEST_TMPDIR");
  std::string path = absl::StrCat(directory != nullptr ? directory : "/tmp",
                                  "/tern_test_XXXXXX");
  const int fd = mkstemp(&path[0]);
  CHECK(fd >= 0) << path;
  size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t n = write(fd, bytes.data() + done, bytes.size() - done);
    CHECK(n > 0) << path;
    done += n;
  }
  CHECK(close(fd) == 0) << path;
  return path;
}

std::string WriteTinyModel(const TinyModelOptions& options) {
  return WriteTempFile(TinyModelBytes(options));
}

}  // namespace testing
}  // namespace tern
