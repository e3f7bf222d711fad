// Loads a whole model into one stage and measures loading, prefill and decode,
// without the network around it.
//
//   bazel run -c opt //bench:stage_bench -- --model=/path/to/model.gguf

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "kernels/attention.h"
#include "kernels/head.h"
#include "kernels/isa.h"
#include "kernels/kernels.h"
#include "kernels/ternary_layout.h"
#include "model/model_source.h"
#include "util/logging.h"
#include "worker/kv_cache.h"
#include "worker/machine.h"
#include "worker/packing_choice.h"
#include "worker/sampler.h"
#include "worker/stage.h"
#include "worker/stage_weights.h"
#include "worker/thread_pool.h"

ABSL_FLAG(std::string, model, "",
          "GGUF file, or directory with safetensors. Required.");
ABSL_FLAG(int, threads, 0, "Compute threads. 0: all processors.");
ABSL_FLAG(std::string, head, "int8", "Head mode: int8 or stored.");
ABSL_FLAG(std::string, weights_packing, "2bit",
          "Packing of ternary weights: 2bit, base3, tl2 or auto.");
ABSL_FLAG(int, prompt_tokens, 256, "Tokens of the prompt.");
ABSL_FLAG(int, decode_tokens, 32, "Tokens to decode after it.");
ABSL_FLAG(int, batch, 1, "Sequences decoded together.");
ABSL_FLAG(float, temperature, 0, "Temperature; 0 is greedy.");

namespace tern {
namespace {

double Milliseconds(absl::Time begin) {
  return absl::ToDoubleMilliseconds(absl::Now() - begin);
}

int Main() {
  auto opened = ModelSource::Open(absl::GetFlag(FLAGS_model));
  CHECK(opened.ok()) << opened.status().ToString();
  const std::shared_ptr<const ModelSource> source = std::move(opened).value();
  const ModelConfig* const config = &source->config();
  StageSpec spec{{0, config->n_layers, true, true}, HeadMode::kInt8};
  CHECK(ParseHeadMode(absl::GetFlag(FLAGS_head), &spec.head_mode));
  const int n_threads = absl::GetFlag(FLAGS_threads) > 0
                            ? absl::GetFlag(FLAGS_threads)
                            : AvailableProcessors();
  ThreadPool pool(n_threads);
  const Kernels& kernels = BestKernels();
  const auto packing =
      ChoosePacking(absl::GetFlag(FLAGS_weights_packing), kernels, &pool);
  CHECK(packing.ok()) << packing.status().ToString();
  spec.packing = *packing;

  absl::Time begin = absl::Now();
  const auto weights = LoadStageWeights(
      source, spec, &pool, [](int64_t, int64_t) {}, [] { return false; });
  CHECK(weights.ok()) << weights.status().ToString();
  const double load_ms = Milliseconds(begin);

  const int batch = absl::GetFlag(FLAGS_batch);
  const int n_prompt = absl::GetFlag(FLAGS_prompt_tokens);
  const int n_decode = absl::GetFlag(FLAGS_decode_tokens);
  const int n_blocks = (n_prompt + n_decode + kKvBlockSize - 1) / kKvBlockSize;
  auto made =
      KvCache::Create({config->n_layers, config->n_kv_heads, config->head_dim,
                       n_blocks * batch, config->context_length});
  CHECK(made.ok()) << made.status().ToString();
  KvCache& kv = **made;
  Stage stage(*weights, &kv, &pool, &kernels, std::max(n_prompt, batch));
  std::printf("isa %s  packing %s  threads %d  head %s\n",
              std::string(IsaName(kernels.isa)).c_str(),
              std::string(TernaryPackingName(spec.packing)).c_str(), n_threads,
              std::string(HeadModeName(spec.head_mode)).c_str());
  std::printf("load    %8.0f ms  %.1f MB packed  %.1f MB resident\n", load_ms,
              (*weights)->bytes / 1e6, ResidentBytes() / 1e6);

  double prefill_ms = 0;
  for (int s = 0; s < batch; ++s) {
    CHECK(kv.Open(s).ok());
    std::vector<int32_t> blocks;
    for (int b = 0; b < n_blocks; ++b) blocks.push_back(s * n_blocks + b);
    CHECK(kv.Extend(s, blocks, 0, n_prompt).ok());
    std::vector<int32_t> prompt;
    for (int i = 0; i < n_prompt; ++i) {
      prompt.push_back((i * 7919 + s) % config->vocab_size);
    }
    begin = absl::Now();
    stage.Forward({{prompt, 0, kv.BlockTable(s), true}}, stage.hidden());
    stage.ComputeLogits(0, 1, stage.hidden());
    prefill_ms += Milliseconds(begin);
  }
  std::printf("prefill %8.1f tokens/s\n", batch * n_prompt / prefill_ms * 1e3);

  std::vector<int32_t> tokens(batch, 1);
  SamplerParams params;
  params.temperature = absl::GetFlag(FLAGS_temperature);
  SamplerScratch scratch;
  absl::Duration layers;
  absl::Duration head;
  absl::Duration sampling;
  for (int i = 0; i < n_decode; ++i) {
    std::vector<MicroBatchRow> rows;
    for (int s = 0; s < batch; ++s) {
      CHECK(kv.Extend(s, {}, n_prompt + i, 1).ok());
      rows.push_back({absl::MakeConstSpan(&tokens[s], 1), n_prompt + i,
                      kv.BlockTable(s), true});
    }
    const absl::Time t0 = absl::Now();
    stage.Forward(rows, stage.hidden());
    const absl::Time t1 = absl::Now();
    layers += t1 - t0;
    for (int first = 0; first < batch; first += Stage::kLogitRows) {
      const int count = std::min(Stage::kLogitRows, batch - first);
      const absl::Time t2 = absl::Now();
      stage.ComputeLogits(first, count, stage.hidden());
      const absl::Time t3 = absl::Now();
      for (int s = 0; s < count; ++s) {
        const auto token =
            SampleToken(stage.logits(s), params, n_prompt + i + 1, &scratch);
        CHECK(token.ok()) << token.status().ToString();
        tokens[first + s] = *token;
      }
      head += t3 - t2;
      sampling += absl::Now() - t3;
    }
  }
  const double ms = absl::ToDoubleMilliseconds(layers + head + sampling);
  std::printf(
      "decode  %8.1f tokens/s  %.2f ms a step: layers %.2f, head %.2f, "
      "sampling %.2f\n",
      n_decode * batch / ms * 1e3, ms / n_decode,
      absl::ToDoubleMilliseconds(layers) / n_decode,
      absl::ToDoubleMilliseconds(head) / n_decode,
      absl::ToDoubleMilliseconds(sampling) / n_decode);
  std::printf("weights read at %.2f GB/s; %.1f MB resident, KV pool %.1f MB\n",
              (*weights)->bytes / (ms / n_decode) / 1e6, ResidentBytes() / 1e6,
              kv.pool_bytes() / 1e6);
  return EXIT_SUCCESS;
}

}  // namespace
}  // namespace tern

int main(int argc, char** argv) {
  absl::ParseCommandLine(argc, argv);
  return tern::Main();
}
