#include "tests/testing/tiny_model.h"

#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <unordered_set>

#include "absl/strings/str_cat.h"
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

constexpr float kZeroShare = 0.4f;
constexpr float kLogitDeviation = 3.0f;
constexpr float kQueryKeyGain = 1.5f;

Bytes RandomNorm(int n, Prng* prng) {
  std::vector<float> values(n);
  for (float& value : values) value = 1.0f + 0.1f * prng->Normal();
  return PackF32(values);
}

// Inputs of unit mean square come out with a root mean square of about `gain`.
Bytes RandomTernary(int n_out, int n_in, float gain, Prng* prng) {
  std::vector<uint8_t> codes(static_cast<size_t>(n_out) * n_in);
  for (uint8_t& code : codes) code = prng->Code();
  const float unit = 1.0f / std::sqrt(n_in * (1.0f - kZeroShare));
  return PackI2S(codes, gain * unit * (1.0f + 0.2f * prng->Uniform()));
}

Bytes RandomDense(int n_rows, int n_columns, bool f32, Prng* prng) {
  const float deviation =
      kLogitDeviation / std::sqrt(static_cast<float>(n_columns));
  std::vector<float> values(static_cast<size_t>(n_rows) * n_columns);
  for (float& value : values) value = deviation * prng->Normal();
  return f32 ? PackF32(values) : PackF16(values);
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

void AddTokenizer(const TinyModelOptions& options, GgufBuilder* builder) {
  std::vector<std::string> tokens, merges;
  for (int byte = 0; byte < 256; ++byte) tokens.push_back(Spelling(byte));
  for (const auto& merge :
       Merges(options.vocab_size - 258 - (options.add_eot ? 1 : 0))) {
    merges.push_back(absl::StrCat(merge.first, " ", merge.second));
    tokens.push_back(merge.first + merge.second);
  }
  std::vector<int32_t> types(tokens.size(), 1);
  if (options.add_eot) tokens.push_back("<|eot_id|>");
  const uint32_t bos = static_cast<uint32_t>(tokens.size());
  tokens.push_back("<|begin_of_text|>");
  tokens.push_back("<|end_of_text|>");
  types.resize(tokens.size(), 3);
  builder->SetString("tokenizer.ggml.model", "gpt2")
      .SetString("tokenizer.ggml.pre", "llama-bpe")
      .SetStringArray("tokenizer.ggml.tokens", tokens)
      .SetInt32Array("tokenizer.ggml.token_type", types)
      .SetStringArray("tokenizer.ggml.merges", merges)
      .SetUint32("tokenizer.ggml.bos_token_id", bos)
      .SetUint32("tokenizer.ggml.eos_token_id", bos + 1)
      .SetBool("tokenizer.ggml.add_bos_token", true);
}

}  // namespace

GgufBuilder TinyModel(const TinyModelOptions& options) {
  CHECK(options.vocab_size >= 258 + (options.add_eot ? 1 : 0));
  const std::string& a = options.architecture;
  const int hidden = options.hidden_size;
  const int ffn = options.ffn_size;
  const int q_size = options.n_heads * options.head_dim;
  const int kv_size = options.n_kv_heads * options.head_dim;

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

  const bool has_sub_norms = a != "llama";
  Prng prng(options.seed);
  const auto dense = [&](const std::string& name) {
    builder.AddTensor(
        name,
        {static_cast<uint64_t>(hidden),
         static_cast<uint64_t>(options.vocab_size)},
        options.f32_embedding ? GgufBuilder::kF32 : GgufBuilder::kF16,
        RandomDense(options.vocab_size, hidden, options.f32_embedding, &prng));
  };
  const auto norm = [&](const std::string& name, int n) {
    builder.AddTensor(name, {static_cast<uint64_t>(n)}, GgufBuilder::kF32,
                      RandomNorm(n, &prng));
  };
  const auto ternary = [&](const std::string& name, int n_out, int n_in,
                           float gain) {
    builder.AddTensor(
        name, {static_cast<uint64_t>(n_in), static_cast<uint64_t>(n_out)},
        GgufBuilder::kI2S, RandomTernary(n_out, n_in, gain, &prng));
  };

  // What each sub-layer adds: together they outweigh the embedding, or a tied
  // head would repeat the current token for ever.
  const float residual_gain =
      kLogitDeviation / std::sqrt(2.0f * options.n_layers);
  dense("token_embd.weight");
  for (int layer = 0; layer < options.n_layers; ++layer) {
    const std::string b = absl::StrCat("blk.", layer, ".");
    norm(b + "attn_norm.weight", hidden);
    ternary(b + "ffn_down.weight", hidden, ffn, residual_gain);
    if (has_sub_norms) norm(b + "ffn_sub_norm.weight", ffn);
    ternary(b + "ffn_gate.weight", ffn, hidden, 1.0f);
    ternary(b + "ffn_up.weight", ffn, hidden, 1.0f);
    norm(b + "ffn_norm.weight", hidden);
    if (has_sub_norms) norm(b + "attn_sub_norm.weight", q_size);
    ternary(b + "attn_k.weight", kv_size, hidden, kQueryKeyGain);
    ternary(b + "attn_output.weight", hidden, q_size, residual_gain);
    ternary(b + "attn_q.weight", q_size, hidden, kQueryKeyGain);
    ternary(b + "attn_v.weight", kv_size, hidden, 1.0f);
  }
  norm("output_norm.weight", hidden);
  if (!options.tied_head) dense("output.weight");
  return builder;
}

Bytes TinyModelBytes(const TinyModelOptions& options) {
  return TinyModel(options).Build();
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
