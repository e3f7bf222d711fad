#include "worker/stage.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "util/logging.h"

namespace tern {
namespace {

// Embedding rows read before the file's pages are handed back: each makes some
// 256 KB of it resident (the system maps what is cached around a page), which
// would pile up to the whole table.
constexpr int64_t kEmbeddedRowsMax = 64;

// Tasks per thread that make the last ones to end not matter.
constexpr int kTasksPerThread = 4;

// Queries of one sequence that attend in one task: enough to share the loads of
// keys and values, few enough to leave tasks for all threads.
constexpr int kQueriesPerTask = 16;

// Rows of a stored head that stay in the cache while every token visits them.
constexpr int kStoredHeadRows = 64;

size_t RoundUp(size_t n, size_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}

int WidestInput(const ModelConfig& c) {
  return std::max({c.hidden_size, c.q_size(), c.ffn_size});
}

// Memory is taken as it is first used: short prompts and small batches never
// touch most of it.
HugeBuffer AllocateRoom(size_t bytes) {
  auto room = HugeBuffer::Allocate(bytes, "activations");
  // Some megabytes, as any vector here.
  CHECK(room.ok()) << room.status().ToString();
  return std::move(room).value();
}

HugeBuffer AllocateFloats(size_t n) { return AllocateRoom(n * sizeof(float)); }

}  // namespace

Stage::Stage(std::shared_ptr<const StageWeights> weights, KvCache* kv,
             ThreadPool* pool, const Kernels* kernels, int max_step_tokens)
    : weights_(std::move(weights)),
      kv_(kv),
      pool_(pool),
      kernels_(*kernels),
      rope_(weights_->config.head_dim, weights_->config.rope_theta,
            weights_->config.context_length),
      pairing_(weights_->config.rope_kind == RopeKind::kNeox
                   ? RopePairing::kNeox
                   : RopePairing::kNorm),
      attention_scale_(static_cast<float>(
          1 / std::sqrt(static_cast<double>(weights_->config.head_dim)))),
      logits_stride_(RoundUp(weights_->config.vocab_size, kHeadPanelRows)) {
  CHECK(max_step_tokens >= 1);
  CHECK(kernels_.has_packing(weights_->spec.packing));
  const ModelConfig& c = weights_->config;
  const size_t step = max_step_tokens;
  const size_t tile = std::min(max_step_tokens, kTileTokens);
  hidden_ = AllocateFloats(step * c.hidden_size);
  tokens_.reserve(step);
  runs_.reserve(tile);
  logit_rows_.reserve(step);

  const int attention = 2 * c.kv_size() + c.q_size();
  room_a_ =
      AllocateFloats(tile * std::max({c.hidden_size, c.q_size(), c.ffn_size}));
  room_b_ =
      AllocateFloats(tile * std::max({c.hidden_size, attention, c.ffn_size}));
  q_ = o_ = gate_ = Floats(room_a_);
  k_ = up_ = down_ = Floats(room_b_);
  v_ = k_ + tile * c.kv_size();
  a_ = v_ + tile * c.kv_size();

  // Lines of their own for each thread.
  normed_stride_ = RoundUp(WidestInput(c), 64 / sizeof(float));
  normed_.resize(pool->size() * normed_stride_);
  // The head's input is quantised here too.
  const size_t quantized_tokens = std::max<size_t>(tile, kLogitRows);
  quantized_ = AllocateRoom(quantized_tokens * WidestInput(c));
  quantized_s_.resize(quantized_tokens);
  quantized_sum_.resize(quantized_tokens);
  if (weights_->spec.range.has_head) {
    head_in_.resize(size_t{kLogitRows} * c.hidden_size);
    logits_ = AllocateFloats(kLogitRows * logits_stride_);
    wanted_.reserve(kLogitRows);
    if (weights_->spec.head_mode == HeadMode::kInt8) {
      head_scan_.emplace(weights_->head_int8, pool_, &kernels_);
      CHECK(head_scan_->stride() == logits_stride_);
    }
  }
}

void Stage::Forward(absl::Span<const MicroBatchRow> rows, float* hidden) {
  tokens_.clear();
  logit_rows_.clear();
  for (const MicroBatchRow& row : rows) {
    int32_t position = row.position;
    for (const int32_t id : row.tokens) {
      tokens_.push_back({id, position++, row.block_table.data()});
    }
    const int n_tokens = static_cast<int>(tokens_.size());
    for (int token = n_tokens - row.n_logits; token < n_tokens; ++token) {
      logit_rows_.push_back({token, row.wanted});
    }
  }
  CHECK(tokens_.size() * weights_->config.hidden_size * sizeof(float) <=
        hidden_.size());
  if (weights_->spec.range.has_embedding) Embed(hidden);

  // A token attends to earlier ones only, and those are in its own tile or in
  // one that has been through all the layers.
  const absl::Span<const Token> tokens = tokens_;
  for (size_t begin = 0; begin < tokens.size(); begin += kTileTokens) {
    const absl::Span<const Token> tile = tokens.subspan(begin, kTileTokens);
    float* const x = hidden + begin * weights_->config.hidden_size;
    for (size_t layer = 0; layer < weights_->layers.size(); ++layer) {
      RunLayer(static_cast<int>(layer), tile, x);
      CountProgress();
    }
    const StageTimer timer(profile_, StageOp::kResidual);
    ForEachToken(static_cast<int>(tile.size()),
                 [&](size_t t, int) { AddResidual(t, down_, x); });
  }
}

// x = x + Wo Q(N(attention)), then x = x + Wdown Q(N(act(gate) * up)), whose
// sum the next layer makes, or Forward() after the last.
void Stage::RunLayer(int layer, absl::Span<const Token> tokens, float* x) {
  const ModelConfig& c = weights_->config;
  const LayerWeights& w = weights_->layers[layer];
  const int n = static_cast<int>(tokens.size());

  // What only passes over a token is done where the token is read next, while
  // it is in the cache.
  NormAndQuantize(x, n, c.hidden_size, w.attn_norm, [&](size_t t) {
    if (layer > 0) AddResidual(t, down_, x);
  });
  Multiply(StageOp::kQkv, w.qkv, {q_, k_, v_}, n);
  RotateAndStore(layer, tokens);
  Attend(layer, tokens);
  NormAndQuantize(a_, n, c.q_size(), w.attn_sub_norm);
  Multiply(StageOp::kOutput, w.output, {o_}, n);

  NormAndQuantize(x, n, c.hidden_size, w.ffn_norm,
                  [&](size_t t) { AddResidual(t, o_, x); });
  Multiply(StageOp::kGateAndUp, w.gate_up, {gate_, up_}, n);
  NormAndQuantize(gate_, n, c.ffn_size, w.ffn_sub_norm,
                  [&](size_t t) { Gate(t); });
  Multiply(StageOp::kDown, w.down, {down_}, n);
}

void Stage::ComputeLogits(int begin, int count, const float* hidden) {
  CHECK(weights_->spec.range.has_head);
  CHECK(count <= kLogitRows && begin + count <= logit_row_count());
  const ModelConfig& c = weights_->config;
  float* const head_in = head_in_.data();
  for (int i = 0; i < count; ++i) {
    kernels_.rms_norm(
        hidden +
            static_cast<size_t>(logit_rows_[begin + i].token) * c.hidden_size,
        weights_->output_norm.data(), c.hidden_size, c.norm_eps,
        head_in + static_cast<size_t>(i) * c.hidden_size);
  }
  if (weights_->spec.head_mode == HeadMode::kInt8) {
    HeadInt8(begin, count);
  } else {
    HeadStored(count);
  }
  CountProgress();
  // The quantiser turns NaN into 0, and so into logits that look good.
  for (int i = 0; i < count; ++i) {
    const float* const in = head_in + static_cast<size_t>(i) * c.hidden_size;
    if (!std::all_of(in, in + c.hidden_size,
                     [](float v) { return std::isfinite(v); })) {
      Floats(logits_)[i * logits_stride_] =
          std::numeric_limits<float>::quiet_NaN();
    }
  }
}

void Stage::CountProgress() {
  if (progress_ != nullptr) progress_->fetch_add(1, std::memory_order_relaxed);
}

void Stage::HeadInt8(int begin, int count) {
  NormAndQuantize(head_in_.data(), count, weights_->config.hidden_size, {});
  wanted_.clear();
  for (int i = 0; i < count; ++i) {
    wanted_.push_back(logit_rows_[begin + i].wanted);
  }
  head_scan_->Compute(Quantized(count), wanted_, Floats(logits_), profile_);
}

void Stage::HeadStored(int count) {
  const StageTimer timer(profile_, StageOp::kHead);
  const ModelConfig& c = weights_->config;
  pool_->ParallelFor(
      c.vocab_size, kStoredHeadRows, [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; row += kStoredHeadRows) {
          const int64_t row_end = std::min(row + kStoredHeadRows, end);
          for (int i = 0; i < count; ++i) {
            kernels_.head_stored(
                weights_->head_stored,
                head_in_.data() + static_cast<size_t>(i) * c.hidden_size,
                static_cast<int>(row), static_cast<int>(row_end),
                Floats(logits_) + i * logits_stride_);
          }
        }
      });
}

template <typename Fn>
void Stage::ForEachToken(int n_tokens, Fn fn) {
  pool_->ParallelForEach(n_tokens, [&fn](int64_t t, int thread) {
    fn(static_cast<size_t>(t), thread);
  });
}

void Stage::Embed(float* hidden) {
  const StageTimer timer(profile_, StageOp::kEmbed);
  const size_t n = weights_->config.hidden_size;
  const DenseView& e = weights_->embedding;
  // Not where the head is read from the same pages in every step.
  const bool hands_back = weights_->head_stored.data != e.data;
  const int64_t n_tokens = static_cast<int64_t>(tokens_.size());
  for (int64_t begin = 0; begin < n_tokens; begin += kEmbeddedRowsMax) {
    const int64_t count = std::min(kEmbeddedRowsMax, n_tokens - begin);
    ForEachToken(static_cast<int>(count), [&](size_t t, int) {
      // A row that is not finite shows in the logits, where it is reported.
      kernels_.widen_row(e, tokens_[begin + t].id, hidden + (begin + t) * n);
    });
    rows_embedded_ += count;
    if (rows_embedded_ < kEmbeddedRowsMax || !hands_back) continue;
    weights_->source->Release({static_cast<const uint8_t*>(e.data),
                               e.n_rows * DenseRowBytes(e.type, e.n_columns)});
    rows_embedded_ = 0;
  }
}

void Stage::NormAndQuantize(const float* x, int n_tokens, int n,
                            const std::vector<float>& norm,
                            absl::FunctionRef<void(size_t t)> finish) {
  const StageTimer timer(profile_, StageOp::kNormAndQuantize);
  quantized_n_ = n;
  ForEachToken(n_tokens, [&](size_t t, int thread) {
    finish(t);
    const float* h = x + t * n;
    if (!norm.empty()) {
      float* const normed = &normed_[thread * normed_stride_];
      kernels_.rms_norm(h, norm.data(), n, weights_->config.norm_eps, normed);
      h = normed;
    }
    const QuantizedScale scale = kernels_.quantize_token(
        h, n, reinterpret_cast<int8_t*>(quantized_.data()) + t * n);
    quantized_s_[t] = scale.s;
    quantized_sum_[t] = scale.sum;
  });
}

QuantizedTokens Stage::Quantized(int n_tokens) const {
  return {reinterpret_cast<const int8_t*>(quantized_.data()),
          quantized_s_.data(), quantized_sum_.data(), n_tokens, quantized_n_};
}

void Stage::Multiply(StageOp op, const MatrixGroup& group,
                     absl::Span<float* const> y, int n_tokens) {
  const StageTimer timer(profile_, op);
  const QuantizedTokens in = Quantized(n_tokens);
  pool_->ParallelFor(group.panel_count(), 1, [&](int64_t begin, int64_t end) {
    group.ForSlices(
        begin, end, [&](const MatrixSlice& slice, int row_begin, int row_end) {
          kernels_.ternary_matmul(slice.view, in, row_begin, row_end,
                                  y[slice.matrix] + slice.row_begin,
                                  group.n_out[slice.matrix]);
        });
  });
}

void Stage::RotateAndStore(int layer, absl::Span<const Token> tokens) {
  const StageTimer timer(profile_, StageOp::kRopeAndStore);
  const ModelConfig& c = weights_->config;
  ForEachToken(static_cast<int>(tokens.size()), [&](size_t t, int) {
    const Token& token = tokens[t];
    const float* const cos = rope_.cos(token.position);
    const float* const sin = rope_.sin(token.position);
    for (int head = 0; head < c.n_heads; ++head) {
      kernels_.rope_rotate(&q_[t * c.q_size() + head * c.head_dim], cos, sin,
                           c.head_dim, pairing_);
    }
    for (int head = 0; head < c.n_kv_heads; ++head) {
      kernels_.rope_rotate(&k_[t * c.kv_size() + head * c.head_dim], cos, sin,
                           c.head_dim, pairing_);
    }
    const int32_t block = token.block_table[token.position / kKvBlockSize];
    kernels_.store_kv(kv_->Block(layer, block), token.position % kKvBlockSize,
                      &k_[t * c.kv_size()], &v_[t * c.kv_size()]);
  });
}

void Stage::Attend(int layer, absl::Span<const Token> tokens) {
  const StageTimer timer(profile_, StageOp::kAttention);
  const ModelConfig& c = weights_->config;
  const int group = c.n_heads / c.n_kv_heads;
  FindQueryRuns(tokens);
  // As many heads in a task as leave enough tasks for the threads: whole groups
  // share keys, and one group's come to the cache while the one before is
  // computed.
  int task_heads = c.n_heads;
  while (task_heads > 1 &&
         (c.n_heads % task_heads != 0 ||
          (task_heads % group != 0 && group % task_heads != 0) ||
          static_cast<int>(runs_.size()) * (c.n_heads / task_heads) <
              kTasksPerThread * pool_->size())) {
    --task_heads;
  }
  const int64_t tasks_per_run = c.n_heads / task_heads;
  const int64_t n_tasks = static_cast<int64_t>(runs_.size()) * tasks_per_run;
  pool_->ParallelForEach(n_tasks, [&](int64_t task, int /*thread*/) {
    const QueryRun& run = runs_[task / tasks_per_run];
    const int head = static_cast<int>(task % tasks_per_run) * task_heads;
    AttentionArgs args;
    args.q = &q_[run.first * c.q_size()];
    args.k_pool = kv_->k_pool(layer);
    args.v_pool = kv_->v_pool(layer);
    args.block_table = tokens[run.first].block_table;
    args.n_positions = tokens[run.first].position + 1;
    args.n_heads = c.n_heads;
    args.n_kv_heads = c.n_kv_heads;
    args.head_dim = c.head_dim;
    args.scale = attention_scale_;
    args.n_queries = run.n_tokens;
    kernels_.attend(args, head, head + task_heads, &a_[run.first * c.q_size()]);
  });
}

void Stage::FindQueryRuns(absl::Span<const Token> tokens) {
  runs_.clear();
  for (size_t t = 0; t < tokens.size(); ++t) {
    const bool goes_on = t > 0 &&
                         tokens[t].block_table == tokens[t - 1].block_table &&
                         tokens[t].position == tokens[t - 1].position + 1 &&
                         runs_.back().n_tokens < kQueriesPerTask;
    if (goes_on) {
      ++runs_.back().n_tokens;
    } else {
      runs_.push_back({t, 1});
    }
  }
}

void Stage::Gate(size_t t) {
  const int n = weights_->config.ffn_size;
  const auto gate = weights_->config.activation == Activation::kRelu2
                        ? kernels_.relu2_gate
                        : kernels_.silu_gate;
  gate(&gate_[t * n], &up_[t * n], n, &gate_[t * n]);
}

void Stage::AddResidual(size_t t, const float* y, float* x) {
  const int n = weights_->config.hidden_size;
  kernels_.add(x + t * n, y + t * n, n);
}

}  // namespace tern
