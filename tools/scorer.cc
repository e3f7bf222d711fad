#include "tools/scorer.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/attention.h"
#include "kernels/kernels.h"
#include "util/logging.h"
#include "util/status_macros.h"
#include "worker/stage_weights.h"

namespace tern {

double TextScore::mean_nll() const { return nll / n_tokens; }
double TextScore::perplexity() const { return std::exp(mean_nll()); }
double TextScore::bits_per_byte() const {
  return nll / std::log(2.0) / n_bytes;
}

namespace {

// ln of the sum of exp(logit).
double LogSumExp(absl::Span<const float> logits) {
  float largest = logits[0];
  for (float logit : logits) largest = std::max(largest, logit);
  double sum = 0;
  for (float logit : logits) {
    sum += std::exp(static_cast<double>(logit) - largest);
  }
  return std::log(sum) + largest;
}

// The id that greedy sampling takes.
size_t MostLikely(absl::Span<const float> logits) {
  return std::max_element(logits.begin(), logits.end()) - logits.begin();
}

}  // namespace

double NegativeLogLikelihood(absl::Span<const float> logits, int target) {
  return LogSumExp(logits) - logits[target];
}

double Divergence(absl::Span<const float> logits,
                  absl::Span<const float> other) {
  const double norm = LogSumExp(logits);
  const double other_norm = LogSumExp(other);
  double sum = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    const double log_p = logits[i] - norm;
    sum += std::exp(log_p) * (log_p - (other[i] - other_norm));
  }
  return sum;
}

absl::StatusOr<std::unique_ptr<Scorer>> Scorer::Load(const std::string& path,
                                                     const Options& options,
                                                     ProgressFn progress) {
  CHECK(options.n_threads > 0);
  ASSIGN_OR_RETURN(std::shared_ptr<const ModelSource> source,
                   ModelSource::Open(path));
  std::unique_ptr<Scorer> scorer(new Scorer(options, std::move(source)));
  const int context = scorer->config().context_length;
  int& window = scorer->options_.window_tokens;
  if (window == 0) window = context;
  if (window < 2 || window > context) {
    return absl::InvalidArgumentError(
        absl::StrCat("a window of ", window, " tokens; this model takes 2 to ",
                     context, ", its context"));
  }
  ASSIGN_OR_RETURN(scorer->tokenizer_, scorer->source_->LoadTokenizer());
  std::vector<HeadMode> modes = {options.head_mode};
  if (options.compare_heads) {
    modes.push_back(options.head_mode == HeadMode::kInt8 ? HeadMode::kStored
                                                         : HeadMode::kInt8);
  }
  for (const HeadMode mode : modes) {
    ASSIGN_OR_RETURN(Graph graph, scorer->LoadGraph(mode, progress));
    scorer->graphs_.push_back(std::move(graph));
  }
  return scorer;
}

absl::StatusOr<Scorer::Graph> Scorer::LoadGraph(HeadMode head_mode,
                                                ProgressFn progress) {
  const ModelConfig& config = source_->config();
  const StageSpec spec = {{0, config.n_layers, true, true}, head_mode};
  bool wanted = true;
  ASSIGN_OR_RETURN(auto weights, LoadStageWeights(
                                     source_, spec, &pool_,
                                     [&](int64_t done, int64_t total) {
                                       wanted = progress(done, total) && wanted;
                                     },
                                     [&] { return !wanted; }));
  KvCache::Shape shape = {
      config.n_layers, config.n_kv_heads, config.head_dim,
      (options_.window_tokens + kKvBlockSize - 1) / kKvBlockSize,
      options_.window_tokens};
  together_ = static_cast<int>(std::min<int64_t>(
      Stage::kLogitRows,
      std::max<int64_t>(1,
                        options_.kv_bytes_max /
                            static_cast<int64_t>(KvCache::PoolBytes(shape)))));
  shape.n_blocks *= together_;
  Graph graph;
  ASSIGN_OR_RETURN(graph.kv, KvCache::Create(shape));
  graph.stage =
      std::make_unique<Stage>(std::move(weights), graph.kv.get(), &pool_,
                              &KernelsFor(options_.isa), together_);
  return graph;
}

std::vector<Scorer::Window> Scorer::Cut(
    absl::Span<const TokenId> tokens) const {
  const bool has_bos = tokenizer_->adds_bos() && tokenizer_->bos_id() >= 0;
  const size_t size = options_.window_tokens;
  std::vector<Window> windows;
  for (size_t begin = 0; begin < tokens.size(); begin += size) {
    const absl::Span<const TokenId> part = tokens.subspan(begin, size);
    Window window;
    if (has_bos) window.inputs.push_back(tokenizer_->bos_id());
    window.inputs.insert(window.inputs.end(), part.begin(), part.end() - 1);
    window.targets.assign(part.begin() + (has_bos ? 0 : 1), part.end());
    if (!window.targets.empty()) windows.push_back(std::move(window));
    if (static_cast<int64_t>(windows.size()) == options_.windows_max) break;
  }
  return windows;
}

absl::Status Scorer::Run(absl::Span<Window> windows,
                         absl::FunctionRef<bool(int64_t tokens)> step_done) {
  const int blocks_each =
      (options_.window_tokens + kKvBlockSize - 1) / kKvBlockSize;
  size_t n_steps = 0;
  for (const Graph& graph : graphs_) graph.kv->Clear();
  for (size_t w = 0; w < windows.size(); ++w) {
    for (const Graph& graph : graphs_) RETURN_IF_ERROR(graph.kv->Open(w));
    n_steps = std::max(n_steps, windows[w].inputs.size());
  }
  for (size_t step = 0; step < n_steps; ++step) {
    const int position = static_cast<int>(step);
    std::vector<Window*> running;
    for (Window& window : windows) {
      if (step < window.inputs.size()) running.push_back(&window);
    }
    const int n = static_cast<int>(running.size());
    for (const Graph& graph : graphs_) {
      std::vector<MicroBatchRow> rows;
      for (const Window* window : running) {
        const int w = static_cast<int>(window - windows.data());
        std::vector<int32_t> new_blocks;
        if (position % kKvBlockSize == 0) {
          new_blocks.push_back(w * blocks_each + position / kKvBlockSize);
        }
        RETURN_IF_ERROR(graph.kv->Extend(w, new_blocks, position, 1));
        rows.push_back({absl::MakeConstSpan(&window->inputs[step], 1), position,
                        graph.kv->BlockTable(w), true});
      }
      graph.stage->Forward(rows, graph.stage->hidden());
      graph.stage->ComputeLogits(0, n, graph.stage->hidden());
    }
    pool_.ParallelForEach(n, [&](int64_t i, int) {
      const int row = static_cast<int>(i);
      Window& window = *running[i];
      const absl::Span<const float> logits = graphs_[0].stage->logits(row);
      window.nll += NegativeLogLikelihood(logits, window.targets[step]);
      if (graphs_.size() == 1) return;
      const absl::Span<const float> other = graphs_[1].stage->logits(row);
      window.divergence += Divergence(logits, other);
      window.n_same_choice += MostLikely(logits) == MostLikely(other);
    });
    if (!step_done(n)) {
      return absl::CancelledError("interrupted before the end of the text");
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<TextScore> Scorer::Score(absl::string_view text,
                                        ProgressFn progress) {
  ASSIGN_OR_RETURN(const std::vector<TokenId> tokens,
                   tokenizer_->Encode(text, {/*add_bos=*/false,
                                             /*parse_special=*/false}));
  std::vector<Window> windows = Cut(tokens);
  if (windows.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the text has ", tokens.size(),
        " tokens; there must be at least one that can be predicted"));
  }
  TextScore score;
  for (const Window& window : windows) score.n_tokens += window.targets.size();
  int64_t done = 0;
  for (size_t begin = 0; begin < windows.size(); begin += together_) {
    RETURN_IF_ERROR(
        Run(absl::MakeSpan(windows).subspan(begin, together_), [&](int64_t n) {
          done += n;
          return progress(done, score.n_tokens);
        }));
  }
  // In the order of the text, so that the sum does not depend on how many
  // windows run side by side.
  for (const Window& window : windows) {
    score.nll += window.nll;
    score.divergence += window.divergence;
    score.n_same_choice += window.n_same_choice;
    for (int32_t target : window.targets) {
      score.n_bytes += tokenizer_->TokenBytes(target).size();
    }
  }
  score.n_windows = windows.size();
  if (!std::isfinite(score.nll)) {
    return absl::DataLossError(
        "the model gives logits that are not numbers: its weights are damaged");
  }
  return score;
}

}  // namespace tern
