#include "tests/fuzz/gguf_fuzz.h"

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "model/gguf_config.h"
#include "model/gguf_reader.h"
#include "model/gguf_weights.h"
#include "model/model_config.h"
#include "model/stage_plan.h"
#include "model/tokenizer.h"
#include "model/weights.h"
#include "util/logging.h"

namespace tern {
namespace {

void ExerciseGetters(const GgufReader& file) {
  for (const char* key :
       {"general.architecture", "general.name", "general.alignment",
        "general.file_type", "tokenizer.ggml.tokens",
        "tokenizer.ggml.token_type", "tokenizer.ggml.merges",
        "tokenizer.ggml.add_bos_token", "bitnet-b1.58.rope.freq_base", ""}) {
    if (auto text = file.GetString(key); text.ok()) {
      CHECK(static_cast<int64_t>(text->size()) <= file.file_bytes());
    }
    (void)file.GetInt(key);
    (void)file.GetFloat(key);
    (void)file.GetBool(key);
    (void)file.GetFloatArray(key);
    (void)file.GetIntArray(key);
    if (auto strings = file.GetStringArray(key); strings.ok()) {
      for (absl::string_view s : *strings) {
        CHECK(static_cast<int64_t>(s.size()) <= file.file_bytes());
      }
    }
  }
  // Touches every byte that a tensor claims.
  uint8_t sum = 0;
  for (const GgufTensor& tensor : file.tensors()) {
    for (uint8_t byte : tensor.data) sum += byte;
    CHECK(file.FindTensor(tensor.name) == &tensor);
  }
  volatile uint8_t sink = sum;
  (void)sink;
}

absl::Status ExerciseLayer(const GgufReader& file, const ModelConfig& config,
                           int layer) {
  absl::StatusOr<LayerTensors> tensors = FindLayer(file, config, layer);
  if (!tensors.ok()) return tensors.status();
  absl::Status status;
  for (TernaryTensor* t : {&tensors->q, &tensors->k, &tensors->v, &tensors->o,
                           &tensors->gate, &tensors->up, &tensors->down}) {
    status.Update(MeasureTernary(t));
    if (!status.ok()) return status;
    std::vector<uint8_t> codes(static_cast<size_t>(t->n_out) * t->n_in);
    const int middle = t->n_out / 3;
    status.Update(DecodeTernaryRows(*t, 0, middle, codes.data()));
    status.Update(DecodeTernaryRows(*t, middle, t->n_out, codes.data()));
    if (!status.ok()) return status;
    for (uint8_t code : codes) CHECK(code <= 2);
  }
  return status;
}

absl::Status ExerciseWeights(const GgufReader& file,
                             const ModelConfig& config) {
  absl::Status status;
  for (int layer = 0; layer < config.n_layers; ++layer) {
    status.Update(ExerciseLayer(file, config, layer));
  }
  status.Update(FindEmbedding(file, config).status());
  status.Update(FindHead(file, config).status());
  status.Update(FindOutputNorm(file, config).status());
  const int n_stages = std::min(config.n_layers, 3);
  auto plan = PlanStages(config, n_stages, /*head_int8=*/true, 2);
  CHECK(plan.ok()) << plan.status();
  CHECK(plan->back().layer_end == config.n_layers);
  return status;
}

absl::Status ExerciseTokenizer(const GgufReader& file,
                               const ModelConfig& config) {
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer =
      Tokenizer::FromGguf(file, config.vocab_size);
  if (!tokenizer.ok()) return tokenizer.status();
  const Tokenizer& t = **tokenizer;
  // The file's name stands for text that its author chose, too.
  for (absl::string_view text :
       {absl::string_view("The king's 1234 <|end_of_text|> \n\n élan 😀"),
        absl::string_view(config.name)}) {
    for (bool parse_special : {false, true}) {
      auto ids = t.Encode(text, {true, parse_special});
      if (!ids.ok()) {
        CHECK(absl::IsInvalidArgument(ids.status())) << ids.status();
        continue;
      }
      IncrementalDecoder decoder(&t);
      std::string pieces;
      for (TokenId id : *ids) {
        CHECK(id >= 0 && id < t.vocab_size());
        pieces += decoder.Next(id);
      }
      pieces += decoder.Finish();
      CHECK(pieces == t.Decode(*ids, /*keep_special=*/false));
      // Without control tokens nothing of the text gets lost.
      if (!parse_special) CHECK(pieces == std::string(text));
    }
  }
  for (TokenId id : t.end_ids()) CHECK(id >= 0 && id < t.vocab_size());
  return absl::OkStatus();
}

}  // namespace

GgufDepth ExerciseGguf(absl::Span<const uint8_t> bytes) {
  absl::StatusOr<std::unique_ptr<GgufReader>> file =
      GgufReader::FromBytes(bytes);
  if (!file.ok()) return GgufDepth::kRefused;
  ExerciseGetters(**file);
  absl::StatusOr<ModelConfig> config = ReadModelConfig(**file);
  if (!config.ok()) return GgufDepth::kRead;
  // Both, whatever the other says.
  const absl::Status weights = ExerciseWeights(**file, *config);
  const absl::Status tokenizer = ExerciseTokenizer(**file, *config);
  return weights.ok() && tokenizer.ok() ? GgufDepth::kComplete
                                        : GgufDepth::kConfigured;
}

}  // namespace tern
