#ifndef WORKER_STAGE_H_
#define WORKER_STAGE_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/types/span.h"
#include "kernels/kernels.h"
#include "kernels/rope_table.h"
#include "worker/head_scan.h"
#include "worker/huge_buffer.h"
#include "worker/kv_cache.h"
#include "worker/stage_profile.h"
#include "worker/stage_weights.h"
#include "worker/thread_pool.h"
#include "worker/wanted_logits.h"

namespace tern {

// A run of consecutive tokens of one sequence, as the graph sees it.
struct MicroBatchRow {
  absl::Span<const int32_t> tokens;  // ids; read by the first stage alone
  int32_t position;                  // of the first token
  absl::Span<const int32_t> block_table;
  int n_logits;  // after how many of them, the last, logits are wanted
  WantedLogits wanted = {};  // which; all of them unless it says otherwise
};

// The computation of one pipeline stage: a number of transformer layers, with
// the embedding before the first and the head after the last.
//
// Every result equals docs/exactness.md bit for bit, whatever else is in the
// micro-batch and however many threads compute. Not thread-safe: owned by the
// runner thread, whose pool it uses. Nothing is allocated after construction;
// buffers become resident as they are first used.
class Stage {
 public:
  // Tokens that go through the layers together; larger steps take turns, so
  // that activations stay in the caches and buffers small.
  static constexpr int kTileTokens = 256;
  // Rows of logits that are kept at a time.
  static constexpr int kLogitRows = 32;

  // `kv`, `pool` and `kernels` must outlive the stage; kv->shape() fits the
  // weights' layers, and the kernels have their packing. Steps have at most
  // `max_step_tokens` tokens.
  Stage(std::shared_ptr<const StageWeights> weights, KvCache* kv,
        ThreadPool* pool, const Kernels* kernels, int max_step_tokens);

  // float [max_step_tokens, hidden_size]: room for a step's hidden states.
  float* hidden() { return Floats(hidden_); }

  // Runs the stage's layers.
  //
  // rows:   at most max_step_tokens tokens together, each sequence once; block
  //         tables cover their positions, the KV cache holds all earlier ones.
  // hidden: float [tokens of all rows, hidden_size]. What the stage before gave
  //         (the first stage overwrites it with embeddings), then the result.
  void Forward(absl::Span<const MicroBatchRow> rows, float* hidden);

  // Tokens of the last Forward() after which logits are wanted, in the order of
  // the rows.
  int logit_row_count() const { return static_cast<int>(logit_rows_.size()); }

  // Last stage: computes the logits after tokens [begin, begin + count) of
  // those, at most kLogitRows, from the `hidden` that Forward() left. Logits
  // that are not wanted are exact, or the lowest finite float. After a token
  // whose hidden state is not finite one of them is not.
  void ComputeLogits(int begin, int count, const float* hidden);

  // Logits [vocab_size] after the i-th token of the last ComputeLogits().
  absl::Span<const float> logits(int i) const {
    return {Floats(logits_) + i * logits_stride_,
            static_cast<size_t>(weights_->config.vocab_size)};
  }

  const StageWeights& weights() const { return *weights_; }

  // Adds where time goes to *profile from now on; null to stop.
  void set_profile(StageProfile* profile) { profile_ = profile; }

  // Adds one to *progress with every layer, and with each ComputeLogits(), from
  // now on. It must outlive the stage.
  void set_progress(std::atomic<int64_t>* progress) { progress_ = progress; }
  // Adds one now: who runs the stage has got somewhere by other means.
  void CountProgress();

 private:
  static float* Floats(const HugeBuffer& buffer) {
    return reinterpret_cast<float*>(buffer.data());
  }

  // Where a token of the micro-batch stands.
  struct Token {
    int32_t id;
    int32_t position;
    const int32_t* block_table;
  };
  // Consecutive tokens of one sequence, whose queries attend together.
  struct QueryRun {
    size_t first;  // token of the tile
    int n_tokens;
  };
  struct LogitRow {
    int token;  // of the step
    WantedLogits wanted;
  };

  void Embed(float* hidden);
  void RunLayer(int layer, absl::Span<const Token> tokens, float* x);
  // The int8 form of N(x, norm), or of x without a norm, x being [tokens, n].
  // finish(t) is called first and completes row t of x.
  void NormAndQuantize(
      const float* x, int n_tokens, int n, const std::vector<float>& norm,
      absl::FunctionRef<void(size_t t)> finish = [](size_t) {});
  // What NormAndQuantize() left, for the kernels.
  QuantizedTokens Quantized(int n_tokens) const;
  // Multiplies the quantised activations with each matrix of a group, whose
  // results go to y[matrix], each float [n_tokens, rows of the matrix].
  void Multiply(StageOp op, const MatrixGroup& group,
                absl::Span<float* const> y, int n_tokens);
  void RotateAndStore(int layer, absl::Span<const Token> tokens);
  void Attend(int layer, absl::Span<const Token> tokens);
  // Fills runs_.
  void FindQueryRuns(absl::Span<const Token> tokens);
  // Of one token: gate = act(gate) * up, x = x + y.
  void Gate(size_t t);
  void AddResidual(size_t t, const float* y, float* x);
  void HeadInt8(int begin, int count);
  void HeadStored(int count);
  // fn(t, thread) for each token.
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
  StageProfile* profile_ = nullptr;
  std::atomic<int64_t>* progress_ = nullptr;

  HugeBuffer hidden_;           // float [max_step_tokens, hidden_size]
  std::vector<Token> tokens_;   // of the step
  std::vector<QueryRun> runs_;  // of the tile
  std::vector<LogitRow> logit_rows_;
  int64_t rows_embedded_ = 0;  // since the file's pages were handed back

  // Of a tile of tokens: two rooms that take turns, since what a layer computes
  // is soon used up.
  //
  //            attention         feed-forward
  //   room a   q; o's output     gate
  //   room b   k, v, attention   up; down's output
  HugeBuffer room_a_;
  HugeBuffer room_b_;
  float* q_;     // [tile, q_size]
  float* o_;     // [tile, hidden_size], to be added to x
  float* gate_;  // [tile, ffn_size]
  float* k_;     // [tile, kv_size]
  float* v_;     // [tile, kv_size]
  float* a_;     // [tile, q_size], output of attention
  float* up_;    // [tile, ffn_size]
  float* down_;  // [tile, hidden_size], to be added to x

  // float [threads, normed_stride_]: N of one token, before it is quantised.
  std::vector<float> normed_;
  size_t normed_stride_;
  HugeBuffer quantized_;  // int8 [tile, n]
  std::vector<float> quantized_s_;
  std::vector<int32_t> quantized_sum_;
  int quantized_n_ = 0;

  std::vector<float> head_in_;         // [kLogitRows, hidden_size]
  HugeBuffer logits_;                  // float [kLogitRows, logits_stride_]
  std::optional<HeadScan> head_scan_;  // in head mode int8
  std::vector<WantedLogits> wanted_;   // of the rows of a call
};

}  // namespace tern

#endif  // WORKER_STAGE_H_
