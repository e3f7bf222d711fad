#ifndef TESTS_GOLDEN_LOCAL_PIPELINE_H_
#define TESTS_GOLDEN_LOCAL_PIPELINE_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "kernels/head.h"
#include "kernels/isa.h"
#include "kernels/ternary_layout.h"
#include "model/model_source.h"
#include "worker/kv_cache.h"
#include "worker/sampler.h"
#include "worker/stage.h"
#include "worker/stage_weights.h"
#include "worker/thread_pool.h"
#include "worker/wanted_logits.h"

namespace tern {
namespace testing {

using StageWeightsList = std::vector<std::shared_ptr<const StageWeights>>;

// Loads a model cut into `n_stages` stages of as equal numbers of layers as can
// be. Fails the process on error.
StageWeightsList LoadStages(const std::shared_ptr<const ModelSource>& source,
                            int n_stages, HeadMode head_mode,
                            TernaryPacking packing);

// The stages of a pipeline in one process, without runners and links, for tests
// that look at every logit. KV blocks are handed out in a scrambled order, so
// that no sequence has its own in a row.
class LocalPipeline {
 public:
  static constexpr int kStepTokensMax = 600;

  // Tokens of a sequence that run in a step.
  struct Row {
    int64_t sequence_id;
    int32_t position;
    std::vector<int32_t> tokens;
    bool samples;
    WantedLogits wanted = {};
  };

  LocalPipeline(const StageWeightsList& stages, Isa isa, int n_threads);

  void Open(int64_t sequence_id);
  void Release(int64_t sequence_id);

  // Runs a step and returns the logits of the sampling rows, in their order.
  std::vector<std::vector<float>> Step(const std::vector<Row>& rows);

  // The bytes that the KV cache holds for the first n_tokens of a sequence, in
  // an order that does not depend on its blocks.
  std::vector<uint16_t> KvOf(int64_t sequence_id, int n_tokens) const;

 private:
  struct Part {
    std::unique_ptr<KvCache> kv;
    std::unique_ptr<Stage> stage;
  };

  ThreadPool pool_;
  std::vector<Part> parts_;
  std::vector<int32_t> free_blocks_;
  std::vector<float> hidden_;
};

// A sequence to generate.
struct GoldenRequest {
  std::vector<int32_t> prompt;
  SamplerParams sampler;
  int n_tokens;
};

// What came of it: tokens, and the logits that each was chosen from.
struct GoldenAnswer {
  std::vector<int32_t> tokens;
  std::vector<std::vector<float>> logits;
};

// Bits, not values: 0 and -0 differ.
bool SameBits(const GoldenAnswer& a, const GoldenAnswer& b);

// Generates all, `batch` sequences at a time (each joins one step after the one
// before), prompts in chunks of at most `chunk` tokens. Of the logits, all are
// computed, or those that the samplers want.
enum class LogitsComputed { kAll, kWanted };
std::vector<GoldenAnswer> Generate(LocalPipeline* pipeline,
                                   const std::vector<GoldenRequest>& requests,
                                   int chunk, int batch,
                                   LogitsComputed computed);

}  // namespace testing
}  // namespace tern

#endif  // TESTS_GOLDEN_LOCAL_PIPELINE_H_
