#include "tools/random_model.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "kernels/float16.h"
#include "model/gguf_reader.h"
#include "model/gguf_writer.h"
#include "tools/chunked_write.h"
#include "tools/gguf_metadata.h"
#include "tools/synthetic_vocabulary.h"
#include "util/status_macros.h"

namespace tern {
namespace {

constexpr float kZeroShare = 0.4f;
constexpr float kLogitDeviation = 3.0f;
// Root mean square of queries and keys before RoPE: 1 gives flat attention.
constexpr float kQueryKeyGain = 1.5f;
// Elements of a dense chunk, more or less.
constexpr int64_t kDenseChunk = int64_t{1} << 19;

// SplitMix64. The library's distributions differ between implementations, and
// libm between machines; with this, sums and square roots there is neither.
class Prng {
 public:
  explicit Prng(uint64_t seed) : state_(seed) {}

  uint64_t Next() {
    state_ += 0x9e3779b97f4a7c15u;
    return Mix(state_);
  }

  static uint64_t Mix(uint64_t z) {
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
  }

 private:
  uint64_t state_;
};

// A stream of its own for each part of each tensor, so that threads share
// nothing and a tensor does not depend on those before it.
uint64_t SeedOf(uint64_t seed, absl::string_view tensor, int64_t chunk) {
  uint64_t hash = 0xcbf29ce484222325u;  // FNV-1a
  for (char c : tensor) {
    hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3u;
  }
  return Prng::Mix(Prng::Mix(Prng::Mix(seed) ^ hash) + chunk);
}

// 65536 draws from a normal distribution, near enough, of mean exactly 0: a
// uint16 chooses one. Sums of twelve uniform ones, exact in integers.
const std::array<float, 65536>& NormalTable() {
  static const std::array<float, 65536>& table = *[] {
    auto* values = new std::array<float, 65536>;
    Prng prng(0);
    for (int i = 0; i < 32768; ++i) {
      int64_t sum = -6 * 65535;
      for (int k = 0; k < 3; ++k) {
        const uint64_t bits = prng.Next();
        for (int shift = 0; shift < 64; shift += 16) {
          sum += bits >> shift & 0xffff;
        }
      }
      (*values)[i] = static_cast<float>(sum) * 0x1p-16f;
      (*values)[65535 - i] = -(*values)[i];
    }
    return values;
  }();
  return table;
}

// A uint16 chooses four codes, the first in bits 7:6 as in I2_S. Codes are
// independent: 1 with probability 0.4, 0 and 2 with 0.3.
const std::array<uint8_t, 65536>& CodesTable() {
  static const std::array<uint8_t, 65536>& table = *[] {
    auto* bytes = new std::array<uint8_t, 65536>;
    constexpr int kTenths[] = {3, 4, 3};
    int64_t share = 0;  // of 10^4
    int next = 0;
    for (int combination = 0; combination < 81; ++combination) {
      const int codes[] = {combination / 27, combination / 9 % 3,
                           combination / 3 % 3, combination % 3};
      int64_t product = 1;
      uint8_t byte = 0;
      for (int code : codes) {
        product *= kTenths[code];
        byte = static_cast<uint8_t>(byte << 2 | code);
      }
      share += product;
      const int end = static_cast<int>(share * 65536 / 10000);
      for (; next < end; ++next) (*bytes)[next] = byte;
    }
    return bytes;
  }();
  return table;
}

// Codes [n] of a chunk, whatever the format: those of each I2_S block, byte
// after byte.
void RandomI2S(Prng* prng, int64_t n, uint8_t* out) {
  const std::array<uint8_t, 65536>& table = CodesTable();
  for (int64_t i = 0; i < n / 4; i += 4) {
    const uint64_t bits = prng->Next();
    out[i] = table[bits & 0xffff];
    out[i + 1] = table[bits >> 16 & 0xffff];
    out[i + 2] = table[bits >> 32 & 0xffff];
    out[i + 3] = table[bits >> 48];
  }
}

uint16_t ToBFloat16(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof(bits));
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

// 32 values as a Q8_0 block: float16 scale, int8 quotients.
void AppendQ8Block(const float* x, std::vector<uint8_t>* out) {
  float absmax = 0;
  for (int i = 0; i < 32; ++i) absmax = std::max(absmax, std::fabs(x[i]));
  const float d = absmax / 127;
  const float inverse = d > 0 ? 1 / d : 0;
  const uint16_t half = FloatToHalf(d);
  uint8_t block[34];
  std::memcpy(block, &half, sizeof(half));
  for (int i = 0; i < 32; ++i) {
    block[2 + i] =
        static_cast<uint8_t>(static_cast<int>(std::nearbyintf(x[i] * inverse)));
  }
  out->insert(out->end(), block, block + sizeof(block));
}

class RandomModel {
 public:
  RandomModel(const RandomModelOptions& options, ThreadPool* pool,
              ProgressFn progress)
      : options_(options),
        config_(options.config),
        pool_(pool),
        progress_(progress) {}

  absl::StatusOr<int64_t> Write(const std::string& path) {
    RETURN_IF_ERROR(Check());
    RETURN_IF_ERROR(AddMetadata());
    RETURN_IF_ERROR(AddTensors());
    ASSIGN_OR_RETURN(writer_,
                     GgufWriter::Create(path, header_, options_.overwrite));
    for (const auto& write : tensors_) RETURN_IF_ERROR(write());
    // The same options give the same file again: no need to wait for the disk.
    RETURN_IF_ERROR(writer_->Finish(/*sync=*/false));
    return writer_->file_bytes();
  }

 private:
  absl::Status Check() const {
    if (config_.n_layers < 1 || config_.n_layers > kLayersMax ||
        config_.context_length < 1 || config_.context_length > kContextMax) {
      return absl::InvalidArgumentError(absl::StrCat(
          config_.n_layers, " layers and a context of ", config_.context_length,
          "; models have 1 to ", kLayersMax, " layers and contexts of 1 to ",
          kContextMax));
    }
    if (options_.dense == DenseEncoding::kQ6K ||
        options_.dense == DenseEncoding::kQ4K) {
      return absl::InvalidArgumentError(
          absl::StrCat("embeddings in ", DenseEncodingName(options_.dense),
                       " are not made here"));
    }
    if (options_.dense == DenseEncoding::kQ8_0 &&
        config_.hidden_size % 32 != 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("embeddings of width ", config_.hidden_size,
                       "; Q8_0 takes multiples of 32"));
    }
    RETURN_IF_ERROR(CheckWidth("the model's width", config_.hidden_size));
    RETURN_IF_ERROR(CheckWidth("the feed-forward width", config_.ffn_size));
    RETURN_IF_ERROR(CheckWidth("the width of all heads", config_.q_size()));
    if (options_.type == TernaryFormat::kI2S) return absl::OkStatus();
    const int block = TernaryBlockWeights(options_.type);
    for (int width :
         {config_.hidden_size, config_.q_size(), config_.ffn_size}) {
      if (width % block != 0) {
        return absl::InvalidArgumentError(absl::StrCat(
            "the model has matrices with rows of ", width, " weights, and ",
            TernaryFormatName(options_.type), " takes multiples of ", block,
            "; I2_S can hold them"));
      }
    }
    return absl::OkStatus();
  }

  absl::Status AddMetadata() {
    const ModelConfig& c = config_;
    SetModelKeys(c, options_.type, &header_);
    ASSIGN_OR_RETURN(const SyntheticVocabulary vocabulary,
                     MakeSyntheticVocabulary(c.vocab_size));
    header_.SetString("tokenizer.ggml.model", "gpt2");
    header_.SetString("tokenizer.ggml.pre", "llama-bpe");
    header_.SetStringArray("tokenizer.ggml.tokens", vocabulary.tokens);
    header_.SetInt32Array("tokenizer.ggml.token_type", vocabulary.types);
    header_.SetStringArray("tokenizer.ggml.merges", vocabulary.merges);
    header_.SetUint32("tokenizer.ggml.bos_token_id", vocabulary.bos_id);
    header_.SetUint32("tokenizer.ggml.eos_token_id", vocabulary.eos_id);
    header_.SetUint32("tokenizer.ggml.eot_token_id", vocabulary.eot_id);
    header_.SetBool("tokenizer.ggml.add_bos_token", true);
    return absl::OkStatus();
  }

  absl::Status AddTensors() {
    const ModelConfig& c = config_;
    const int hidden = c.hidden_size, q = c.q_size(), kv = c.kv_size();
    // What each sub-layer adds to the residual stream: together they outweigh
    // the embedding, or a tied head would repeat the current token for ever.
    // Without sub-norms the inputs of these matrices are smaller.
    const float residual = kLogitDeviation / std::sqrt(2.0f * c.n_layers);
    const float attention_gain = c.has_sub_norms ? residual : 2 * residual;
    const float ffn_gain = c.has_sub_norms ? residual : 1.5f * residual;
    RETURN_IF_ERROR(AddDense("token_embd.weight"));
    for (int layer = 0; layer < c.n_layers; ++layer) {
      const std::string b = absl::StrCat("blk.", layer, ".");
      RETURN_IF_ERROR(AddNorm(b + "attn_norm", hidden));
      RETURN_IF_ERROR(AddTernary(b + "attn_q", q, hidden, kQueryKeyGain));
      RETURN_IF_ERROR(AddTernary(b + "attn_k", kv, hidden, kQueryKeyGain));
      RETURN_IF_ERROR(AddTernary(b + "attn_v", kv, hidden, 1));
      if (c.has_sub_norms) RETURN_IF_ERROR(AddNorm(b + "attn_sub_norm", q));
      RETURN_IF_ERROR(AddTernary(b + "attn_output", hidden, q, attention_gain));
      RETURN_IF_ERROR(AddNorm(b + "ffn_norm", hidden));
      RETURN_IF_ERROR(AddTernary(b + "ffn_gate", c.ffn_size, hidden, 1));
      RETURN_IF_ERROR(AddTernary(b + "ffn_up", c.ffn_size, hidden, 1));
      if (c.has_sub_norms) {
        RETURN_IF_ERROR(AddNorm(b + "ffn_sub_norm", c.ffn_size));
      }
      RETURN_IF_ERROR(AddTernary(b + "ffn_down", hidden, c.ffn_size, ffn_gain));
    }
    RETURN_IF_ERROR(AddNorm("output_norm", hidden));
    return c.tied_head ? absl::OkStatus() : AddDense("output.weight");
  }

  absl::Status AddNorm(const std::string& stem, int n) {
    const std::string name = stem + ".weight";
    RETURN_IF_ERROR(header_.AddTensor(name, {n},
                                      static_cast<uint32_t>(GgufType::kF32),
                                      DenseBytes(DenseEncoding::kF32, n)));
    tensors_.push_back([this, name, n] {
      Prng prng(SeedOf(options_.seed, name, 0));
      std::vector<float> values(n);
      for (float& value : values) {
        value = 1.0f + 0.1f * NormalTable()[prng.Next() & 0xffff];
      }
      return writer_->Append({reinterpret_cast<const uint8_t*>(values.data()),
                              values.size() * sizeof(float)});
    });
    return absl::OkStatus();
  }

  // Inputs of unit mean square come out with a root mean square near `gain`.
  absl::Status AddTernary(const std::string& stem, int n_out, int n_in,
                          float gain) {
    const std::string name = stem + ".weight";
    const int64_t n = static_cast<int64_t>(n_out) * n_in;
    if (n % TernaryBlockWeights(options_.type) != 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor ", name, " would have ", n, " weights, and ",
                       TernaryFormatName(options_.type), " takes multiples of ",
                       TernaryBlockWeights(options_.type)));
    }
    RETURN_IF_ERROR(header_.AddTensor(name, {n_in, n_out},
                                      GgufTypeOf(options_.type),
                                      TernaryBytes(options_.type, n)));
    // Not all alike, so that a scale used for the wrong matrix shows.
    const float spread =
        1.0f + 0.2f * 0x1p-24f *
                   static_cast<float>(
                       Prng(SeedOf(options_.seed, name, -1)).Next() >> 40);
    const float scale = HalfToFloat(
        FloatToHalf(gain / std::sqrt(n_in * (1 - kZeroShare)) * spread));
    tensors_.push_back([this, name, n, scale] {
      return WriteChunks(
          writer_.get(), pool_,
          (n + kTernaryChunkWeights - 1) / kTernaryChunkWeights,
          [&](int64_t chunk, std::vector<uint8_t>* out) {
            const int64_t begin = chunk * kTernaryChunkWeights;
            Prng prng(SeedOf(options_.seed, name, chunk));
            MakeTernary(&prng, std::min(kTernaryChunkWeights, n - begin), scale,
                        begin + kTernaryChunkWeights >= n, out);
            return absl::OkStatus();
          },
          progress_);
    });
    return absl::OkStatus();
  }

  void MakeTernary(Prng* prng, int64_t n, float scale, bool is_last,
                   std::vector<uint8_t>* out) const {
    const TernaryFormat type = options_.type;
    const int64_t behind = TernaryBytes(TernaryFormat::kI2S, 0);
    std::vector<uint8_t> stream(n / 4 + behind);
    RandomI2S(prng, n, stream.data());
    std::memcpy(stream.data() + n / 4, &scale, sizeof(scale));
    if (type != TernaryFormat::kI2S) {
      std::vector<uint8_t> codes(n);
      DecodeTernary(TernaryFormat::kI2S, stream.data(), scale, 0, n,
                    codes.data());
      out->resize(TernaryBytes(type, n));
      EncodeTernary(type, codes.data(), n, scale, out->data());
      return;
    }
    if (!is_last) stream.resize(n / 4);
    *out = std::move(stream);
  }

  absl::Status AddDense(const std::string& name) {
    const int columns = config_.hidden_size;
    const int64_t rows = config_.vocab_size;
    RETURN_IF_ERROR(
        header_.AddTensor(name, {columns, rows}, GgufTypeOf(options_.dense),
                          DenseBytes(options_.dense, rows * columns)));
    tensors_.push_back([this, name, rows, columns] {
      // Every type rounds the same float16 numbers.
      std::vector<uint16_t> table(65536);
      const float deviation =
          kLogitDeviation / std::sqrt(static_cast<float>(columns));
      for (int i = 0; i < 65536; ++i) {
        table[i] = FloatToHalf(deviation * NormalTable()[i]);
      }
      const int64_t per_chunk = std::max<int64_t>(1, kDenseChunk / columns);
      return WriteChunks(
          writer_.get(), pool_, (rows + per_chunk - 1) / per_chunk,
          [&](int64_t chunk, std::vector<uint8_t>* out) {
            Prng prng(SeedOf(options_.seed, name, chunk));
            const int64_t n_rows =
                std::min(per_chunk, rows - chunk * per_chunk);
            MakeDense(&prng, n_rows * columns, table, out);
            return absl::OkStatus();
          },
          progress_);
    });
    return absl::OkStatus();
  }

  // n: a multiple of 16, as all widths are.
  void MakeDense(Prng* prng, int64_t n, const std::vector<uint16_t>& table,
                 std::vector<uint8_t>* out) const {
    std::vector<uint16_t> halves(n);
    for (int64_t i = 0; i < n; i += 4) {
      const uint64_t bits = prng->Next();
      for (int k = 0; k < 4; ++k) {
        halves[i + k] = table[bits >> (16 * k) & 0xffff];
      }
    }
    const auto append = [out](const void* data, size_t size) {
      const uint8_t* p = static_cast<const uint8_t*>(data);
      out->insert(out->end(), p, p + size);
    };
    if (options_.dense == DenseEncoding::kF16) {
      append(halves.data(), halves.size() * sizeof(uint16_t));
      return;
    }
    std::vector<float> values(n);
    for (int64_t i = 0; i < n; ++i) values[i] = HalfToFloat(halves[i]);
    if (options_.dense == DenseEncoding::kF32) {
      append(values.data(), values.size() * sizeof(float));
    } else if (options_.dense == DenseEncoding::kBF16) {
      for (int64_t i = 0; i < n; ++i) halves[i] = ToBFloat16(values[i]);
      append(halves.data(), halves.size() * sizeof(uint16_t));
    } else {
      out->reserve(n / 32 * 34);
      for (int64_t i = 0; i < n; i += 32) AppendQ8Block(&values[i], out);
    }
  }

  const RandomModelOptions& options_;
  const ModelConfig& config_;
  ThreadPool* const pool_;
  const ProgressFn progress_;
  GgufHeader header_;
  // What writes each tensor, in the order of the header.
  std::vector<std::function<absl::Status()>> tensors_;
  std::unique_ptr<GgufWriter> writer_;
};

}  // namespace

absl::StatusOr<int64_t> WriteRandomModel(const std::string& path,
                                         const RandomModelOptions& options,
                                         ThreadPool* pool,
                                         ProgressFn progress) {
  return RandomModel(options, pool, progress).Write(path);
}

}  // namespace tern
