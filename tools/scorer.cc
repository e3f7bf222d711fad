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

double NegativeLogLikelihood(absl::Span<const float> logits, int target) {
  float largest = logits[0];
  for (float logit : logits) largest = std::max(largest, logit);
  double sum = 0;
  for (float logit : logits) {
    sum += std::exp(static_cast<double>(logit) - largest);
  }
  return std::log(sum) + largest - logits[target];
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
  RETURN_IF_ERROR(scorer->LoadStage(progress));
  return scorer;
}

absl::Status Scorer::LoadStage(ProgressFn progress) {
  const ModelConfig& config = source_->config();
  const StageSpec spec = {{0, config.n_layers, true, true}, options_.head_mode};
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
  ASSIGN_OR_RETURN(kv_, KvCache::Create(shape));
  stage_ = std::make_unique<Stage>(std::move(weights), kv_.get(), &pool_,
                                   &KernelsFor(options_.isa), together_);
  return absl::OkStatus();
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
  kv_->Clear();
  for (size_t w = 0; w < windows.size(); ++w) {
    RETURN_IF_ERROR(kv_->Open(w));
    n_steps = std::max(n_steps, windows[w].inputs.size());
  }
  for (size_t step = 0; step < n_steps; ++step) {
    const int position = static_cast<int>(step);
    std::vector<Window*> running;
    std::vector<MicroBatchRow> rows;
    for (size_t w = 0; w < windows.size(); ++w) {
      if (step >= windows[w].inputs.size()) continue;
      std::vector<int32_t> new_blocks;
      if (position % kKvBlockSize == 0) {
        new_blocks.push_back(static_cast<int32_t>(w) * blocks_each +
                             position / kKvBlockSize);
      }
      RETURN_IF_ERROR(kv_->Extend(w, new_blocks, position, 1));
      running.push_back(&windows[w]);
      rows.push_back({absl::MakeConstSpan(&windows[w].inputs[step], 1),
                      position, kv_->BlockTable(w), true});
    }
    const int n = static_cast<int>(rows.size());
    stage_->Forward(rows, stage_->hidden());
    stage_->ComputeLogits(0, n, stage_->hidden());
    pool_.ParallelForEach(n, [&](int64_t i, int) {
      running[i]->nll += NegativeLogLikelihood(
          stage_->logits(static_cast<int>(i)), running[i]->targets[step]);
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
