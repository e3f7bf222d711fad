#ifndef TOOLS_SCORER_H_
#define TOOLS_SCORER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "kernels/head.h"
#include "kernels/isa.h"
#include "model/model_config.h"
#include "model/model_source.h"
#include "model/tokenizer.h"
#include "tools/progress.h"
#include "worker/kv_cache.h"
#include "worker/stage.h"
#include "worker/thread_pool.h"

namespace tern {

// How likely a model finds a text.
struct TextScore {
  int64_t n_tokens = 0;  // that were predicted
  int64_t n_windows = 0;
  int64_t n_bytes = 0;  // of text that those tokens stand for
  double nll = 0;       // sum of -ln(probability), in nats
  // With Options::compare_heads: sum of the divergences of the other head
  // mode's distribution from this one's, in nats, and the tokens for which both
  // find the same id most likely.
  double divergence = 0;
  int64_t n_same_choice = 0;

  double mean_nll() const;
  double perplexity() const;  // exp(mean_nll())
  double bits_per_byte() const;
};

// A whole model as one worker stage, which scores texts: the computation that
// serves requests, and nothing else. Not thread-safe.
class Scorer {
 public:
  struct Options {
    HeadMode head_mode = HeadMode::kStored;
    // Also computes the other head mode: twice the memory and the time.
    bool compare_heads = false;
    Isa isa = Isa::kRef;  // must be supported
    int n_threads = 1;    // must be > 0
    // Tokens of a window. 0: the model's context.
    int window_tokens = 0;
    // Windows to score, from the first. 0: all.
    int64_t windows_max = 0;
    // Bytes that keys and values may take, so far as one window allows.
    int64_t kv_bytes_max = int64_t{1} << 30;
  };

  // INVALID_ARGUMENT for a window that the model cannot take; what opening and
  // loading the model say.
  static absl::StatusOr<std::unique_ptr<Scorer>> Load(const std::string& path,
                                                      const Options& options,
                                                      ProgressFn progress);

  // The method: the text becomes tokens as a whole and is cut into windows of
  // `window_tokens` each, the last one shorter. Each window stands alone,
  // behind a BOS, and every token of it is predicted from the BOS and what
  // precedes it in the window. (The last one is never an input, so that a
  // window and its BOS fit the context.) Where the tokenizer adds no BOS, the
  // first token of a window is an input only.
  //
  // progress: hears windows' tokens that are done. INVALID_ARGUMENT when the
  // text is not UTF-8 or too short to predict a token; DATA_LOSS when logits
  // are not numbers; CANCELLED.
  absl::StatusOr<TextScore> Score(absl::string_view text, ProgressFn progress);

  const ModelConfig& config() const { return source_->config(); }
  int window_tokens() const { return options_.window_tokens; }
  // Windows that are computed together. Changes no result.
  int together() const { return together_; }

 private:
  // A window: input i predicts target i.
  struct Window {
    std::vector<int32_t> inputs;
    std::vector<int32_t> targets;
    double nll = 0;
    double divergence = 0;
    int64_t n_same_choice = 0;
  };
  // The model with one head mode.
  struct Graph {
    std::unique_ptr<KvCache> kv;
    std::unique_ptr<Stage> stage;
  };

  Scorer(const Options& options, std::shared_ptr<const ModelSource> source)
      : options_(options),
        source_(std::move(source)),
        pool_(options.n_threads) {}

  absl::StatusOr<Graph> LoadGraph(HeadMode head_mode, ProgressFn progress);
  std::vector<Window> Cut(absl::Span<const TokenId> tokens) const;
  // Runs windows side by side, a token of each at a time.
  absl::Status Run(absl::Span<Window> windows,
                   absl::FunctionRef<bool(int64_t tokens)> step_done);

  Options options_;
  const std::shared_ptr<const ModelSource> source_;
  std::unique_ptr<Tokenizer> tokenizer_;
  ThreadPool pool_;
  int together_ = 1;
  std::vector<Graph> graphs_;  // the first is scored
};

// -ln of the probability of `target` under softmax(logits), in double; NaN when
// a logit is not a number.
double NegativeLogLikelihood(absl::Span<const float> logits, int target);

// The Kullback-Leibler divergence of softmax(other) from softmax(logits): the
// sum of p ln(p / q), in double.
double Divergence(absl::Span<const float> logits,
                  absl::Span<const float> other);

}  // namespace tern

#endif  // TOOLS_SCORER_H_
