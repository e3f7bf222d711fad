#ifndef WORKER_STAGE_H_
#define WORKER_STAGE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/types/span.h"
#include "kernels/kernels.h"
#include "kernels/rope_table.h"
#include "worker/kv_cache.h"
#include "worker/stage_weights.h"
#include "worker/thread_pool.h"

namespace tern {

// A run of consecutive tokens of one sequence, as the graph sees it.
struct MicroBatchRow {
  absl::Span<const int32_t> tokens;  // ids; read by the first stage alone
  int32_t position;                  // of the first token
  absl::Span<const int32_t> block_table;
  bool samples;  // whether logits are wanted after the last token
};

// The computation of one pipeline stage: a number of transformer layers, with
// the embedding before the first and the head after the last.
//
// Every result equals docs/exactness.md bit for bit, whatever else is in the
// micro-batch and however many threads compute. Not thread-safe: owned by the
// runner thread, whose pool it uses. Nothing is allocated after construction.
class Stage {
 public:
  // Tokens that go through the layers together; larger steps take turns, so
  // that activations stay in the caches and buffers small.
  static constexpr int kTileTokens = 256;
  // Rows of logits that are kept at a time.
  static constexpr int kLogitRows = 32;

  // `kv`, `pool` and `kernels` must outlive the stage; kv->shape() fits the
  // weights' layers. Steps have at most `max_step_tokens` tokens.
  Stage(std::shared_ptr<const StageWeights> weights, KvCache* kv,
        ThreadPool* pool, const Kernels* kernels, int max_step_tokens);

  // float [max_step_tokens, hidden_size]: room for a step's hidden states.
  float* hidden() { return hidden_.data(); }

  // Runs the stage's layers.
  //
  // rows:   at most max_step_tokens tokens together, each sequence once; block
  //         tables cover their positions, the KV cache holds all earlier ones.
  // hidden: float [tokens of all rows, hidden_size]. What the stage before gave
  //         (the first stage overwrites it with embeddings), then the result.
  void Forward(absl::Span<const MicroBatchRow> rows, float* hidden);

  // Rows of the last Forward() that sample.
  int sampling_row_count() const {
    return static_cast<int>(sampling_tokens_.size());
  }

  // Last stage: computes the logits of sampling rows [begin, begin + count), at
  // most kLogitRows, from the `hidden` that Forward() left. A row whose hidden
  // state is not finite has a logit that is not.
  void ComputeLogits(int begin, int count, const float* hidden);

  // Logits [vocab_size] of the i-th row of the last ComputeLogits().
  absl::Span<const float> logits(int i) const {
    return {logits_.data() + i * logits_stride_,
            static_cast<size_t>(weights_->config.vocab_size)};
  }

  const StageWeights& weights() const { return *weights_; }

 private:
  // Where a token of the micro-batch stands.
  struct Token {
    int32_t id;
    int32_t position;
    const int32_t* block_table;
  };
  struct Output {  // of a matrix: y [tokens, stride]
    const TernaryView* w;
    float* y;
  };

  void Embed(float* hidden);
  void RunLayer(int layer, absl::Span<const Token> tokens, float* x);
  // h = N(x, norm), then its int8 form; without a norm the int8 form of x.
  void NormAndQuantize(const float* x, int n_tokens, int n,
                       const std::vector<float>& norm);
  // Multiplies the quantised activations with each matrix.
  void Multiply(absl::Span<const Output> outputs, int n_tokens);
  void RotateAndStore(int layer, absl::Span<const Token> tokens);
  void Attend(int layer, absl::Span<const Token> tokens);
  void Gate(int n_tokens);
  void AddResidual(float* x, int n_tokens);
  void HeadInt8(int count);
  void HeadStored(int count);
  template <typename Fn>
  void ForEachToken(int n_tokens, Fn fn);

  const std::shared_ptr<const StageWeights> weights_;
  KvCache* const kv_;
  ThreadPool* const pool_;
  const Kernels& kernels_;
  const RopeTable rope_;
  const RopePairing pairing_;
  const float attention_scale_;
  const size_t logits_stride_;

  std::vector<float> hidden_;         // [max_step_tokens, hidden_size]
  std::vector<Token> tokens_;         // of the step
  std::vector<int> sampling_tokens_;  // index of the token of each sampling row
  int64_t rows_embedded_ = 0;         // since the file's pages were handed back

  // Of a tile of tokens.
  std::vector<float> normed_;  // [tile, max(hidden_size, q_size, ffn_size)]
  HugeBuffer quantized_;       // int8 [tile, n]
  std::vector<float> quantized_s_;
  std::vector<int32_t> quantized_sum_;
  int quantized_n_ = 0;
  std::vector<float> q_;     // [tile, q_size]
  std::vector<float> k_;     // [tile, kv_size]
  std::vector<float> v_;     // [tile, kv_size]
  std::vector<float> a_;     // [tile, q_size], output of attention
  std::vector<float> gate_;  // [tile, ffn_size]
  std::vector<float> up_;    // [tile, ffn_size]
  std::vector<float> y_;     // [tile, hidden_size], to be added to x

  std::vector<float> head_in_;  // [kLogitRows, hidden_size]
  std::vector<float> logits_;   // [kLogitRows, logits_stride_]
};

}  // namespace tern

#endif  // WORKER_STAGE_H_
