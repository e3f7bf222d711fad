#include "worker/step_times_measurement.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "absl/types/span.h"
#include "kernels/attention.h"
#include "kernels/head.h"
#include "util/status_macros.h"
#include "worker/huge_buffer.h"
#include "worker/kv_cache.h"
#include "worker/machine.h"
#include "worker/stage.h"
#include "worker/stage_weights.h"
#include "worker/wanted_logits.h"

namespace tern {
namespace {

// Twice the last cache, within these bounds.
constexpr int64_t kLeastBytes = int64_t{32} << 20;
constexpr int64_t kMostBytes = int64_t{128} << 20;

// Sequences that are decoded together; the last are of one layer alone.
constexpr int kFew = 8;
constexpr int kMany = 64;
// Positions before the token, where there is a context.
constexpr int kContext = 512;
constexpr int kHeadRows = Stage::kLogitRows;
constexpr int kRuns = 5;

constexpr int kBlocks = kFew * (kContext / kKvBlockSize + 1);
static_assert(kBlocks >= kMany, "each sequence has a block");

// Bytes that are all 0x55 are weights of zero in two bits, and no kernel takes
// longer for one weight than for another. Pages that nobody has written would
// all be the one page of zeros.
constexpr uint8_t kFill = 0x55;

int64_t BytesToRead() {
  return std::clamp(2 * LastCacheBytes(), kLeastBytes, kMostBytes);
}

void Fill(ThreadPool* pool, uint8_t* begin, size_t bytes, uint8_t value) {
  constexpr size_t kPiece = size_t{1} << 20;
  pool->ParallelFor(static_cast<int64_t>((bytes + kPiece - 1) / kPiece), 1,
                    [&](int64_t from, int64_t to) {
                      const size_t end =
                          std::min(bytes, static_cast<size_t>(to) * kPiece);
                      for (size_t i = from * kPiece; i < end; ++i) {
                        begin[i] = value;
                      }
                    });
}

// Takes matrices from a piece of memory, one after the other; a dry run counts
// their bytes.
class Matrices {
 public:
  Matrices(uint8_t* begin, TernaryPacking packing)
      : begin_(begin), packing_(packing) {}

  MatrixGroup Take(absl::Span<const int> n_out, int n_in) {
    MatrixGroup group;
    for (size_t m = 0; m < n_out.size(); ++m) {
      group.n_out.push_back(n_out[m]);
      group.slices.push_back(
          {static_cast<int>(m),
           0,
           {begin_ + bytes_, n_out[m], n_in, 1.0f, packing_}});
      bytes_ += PanelCount(n_out[m]) * PanelBytes(n_in, packing_);
    }
    return group;
  }
  size_t bytes() const { return bytes_; }

 private:
  uint8_t* const begin_;
  const TernaryPacking packing_;
  size_t bytes_ = 0;
};

LayerWeights TakeLayer(const ModelConfig& c, Matrices* matrices) {
  LayerWeights layer;
  layer.attn_norm.assign(c.hidden_size, 1.0f);
  layer.ffn_norm.assign(c.hidden_size, 1.0f);
  if (c.has_sub_norms) {
    layer.attn_sub_norm.assign(c.q_size(), 1.0f);
    layer.ffn_sub_norm.assign(c.ffn_size, 1.0f);
  }
  layer.qkv =
      matrices->Take({c.q_size(), c.kv_size(), c.kv_size()}, c.hidden_size);
  layer.output = matrices->Take({c.hidden_size}, c.q_size());
  layer.gate_up = matrices->Take({c.ffn_size, c.ffn_size}, c.hidden_size);
  layer.down = matrices->Take({c.hidden_size}, c.ffn_size);
  return layer;
}

// Layers, or layers and a part of a head, and what it takes to run them.
class Model {
 public:
  Model(std::shared_ptr<const StageWeights> weights, KvCache* kv,
        ThreadPool* pool, const Kernels& kernels)
      : weights_(std::move(weights)),
        stage_(weights_, kv, pool, &kernels, kMany) {
    float* hidden = stage_.hidden();
    const size_t n = size_t{kMany} * weights_->config.hidden_size;
    for (size_t i = 0; i < n; ++i) {
      hidden[i] = static_cast<float>(static_cast<int>(i * 7919 % 255) - 127);
    }
  }

  // A step of so many sequences with `position` tokens before each.
  void Forward(int n_sequences, int position, int n_logits = 0) {
    const int n_blocks = position / kKvBlockSize + 1;
    std::vector<std::vector<int32_t>> tables(n_sequences);
    const int32_t token = 0;
    std::vector<MicroBatchRow> rows;
    for (int i = 0; i < n_sequences; ++i) {
      for (int block = 0; block < n_blocks; ++block) {
        tables[i].push_back(i * n_blocks + block);
      }
      rows.push_back({absl::MakeConstSpan(&token, 1),
                      position,
                      tables[i],
                      n_logits,
                      {/*top_k=*/1}});
    }
    stage_.Forward(rows, stage_.hidden());
  }

  void Logits(int n_rows) { stage_.ComputeLogits(0, n_rows, stage_.hidden()); }

 private:
  const std::shared_ptr<const StageWeights> weights_;
  Stage stage_;
};

// Runs things while there is time.
class Stopwatch {
 public:
  explicit Stopwatch(absl::Duration budget) : deadline_(absl::Now() + budget) {}

  // The shortest of kRuns runs, of one when there is no time for more.
  template <typename Fn>
  double Shortest(Fn fn) const {
    double shortest = 0;
    for (int run = 0; run < kRuns; ++run) {
      const absl::Time begin = absl::Now();
      if (run > 0 && begin + absl::Seconds(shortest) > deadline_) break;
      fn();
      // A clock that stood still measures nothing; one nanosecond is less.
      const double seconds =
          std::max(absl::ToDoubleSeconds(absl::Now() - begin), 1e-9);
      shortest = run == 0 ? seconds : std::min(shortest, seconds);
    }
    return shortest;
  }

 private:
  const absl::Time deadline_;
};

// A part of an int8 head whose rows look like those of a model: no two alike.
struct Head {
  HugeBuffer planes;
  std::vector<float> row_scale;
  std::vector<float> lower_norm;
  Int8View view;
};

absl::StatusOr<Head> MakeHead(const ModelConfig& config, ThreadPool* pool) {
  const int64_t most =
      std::max<int64_t>(kHeadPanelRows, BytesToRead() / config.hidden_size /
                                            kHeadPanelRows * kHeadPanelRows);
  Head head;
  head.view.n_rows =
      static_cast<int>(std::min<int64_t>(config.vocab_size, most));
  head.view.n_columns = config.hidden_size;
  const size_t bytes = Int8PlaneBytes(head.view.n_rows, head.view.n_columns);
  ASSIGN_OR_RETURN(head.planes,
                   HugeBuffer::Allocate(2 * bytes, "measuring a head"));
  uint8_t* const data = head.planes.data();
  pool->ParallelFor(static_cast<int64_t>(2 * bytes / sizeof(uint64_t)), 4096,
                    [&](int64_t begin, int64_t end) {
                      for (int64_t i = begin; i < end; ++i) {
                        uint64_t x = (i + 1) * 0x9e3779b97f4a7c15u;
                        x = (x ^ (x >> 31)) * 0xbf58476d1ce4e5b9u;
                        std::memcpy(data + i * sizeof(x), &x, sizeof(x));
                      }
                    });
  const int n_rows = HeadPanelCount(head.view.n_rows) * kHeadPanelRows;
  head.row_scale.assign(n_rows, 1e-3f);
  // The mean square of l - 7.5, l being any of 0..15, is 21.25.
  head.lower_norm.assign(n_rows,
                         NormAbove(int64_t{config.hidden_size} * 85 / 4));
  head.view.upper = data;
  head.view.lower = data + bytes;
  head.view.row_scale = head.row_scale.data();
  head.view.lower_norm = head.lower_norm.data();
  return head;
}

}  // namespace

absl::StatusOr<StepTimes> MeasureStepTimes(const ModelConfig& config,
                                           TernaryPacking packing,
                                           const Kernels& kernels,
                                           ThreadPool* pool,
                                           absl::Duration budget) {
  const Stopwatch stopwatch(budget);
  Matrices dry(nullptr, packing);
  TakeLayer(config, &dry);
  const int n_layers = static_cast<int>(std::clamp<int64_t>(
      BytesToRead() / static_cast<int64_t>(dry.bytes()), 1, config.n_layers));
  ASSIGN_OR_RETURN(
      const HugeBuffer packed,
      HugeBuffer::Allocate(n_layers * dry.bytes(), "measuring layers"));
  Fill(pool, packed.data(), packed.size(), kFill);
  ModelConfig shape = config;
  shape.context_length = kContext + kKvBlockSize;
  ASSIGN_OR_RETURN(
      const std::unique_ptr<KvCache> kv,
      KvCache::Create({n_layers, config.n_kv_heads, config.head_dim, kBlocks,
                       shape.context_length}));
  // Only the first layer's are read with a context.
  Fill(pool, reinterpret_cast<uint8_t*>(kv->k_pool(0)),
       kv->pool_bytes() / n_layers, 0);

  const auto make = [&](int n) {
    auto weights = std::make_shared<StageWeights>();
    weights->config = shape;
    weights->spec = {{0, n, false, false}, HeadMode::kInt8, packing};
    Matrices matrices(packed.data(), packing);
    for (int i = 0; i < n; ++i) {
      weights->layers.push_back(TakeLayer(config, &matrices));
    }
    return weights;
  };

  StepTimes times;
  {
    Model all(make(n_layers), kv.get(), pool, kernels);
    Model one(make(1), kv.get(), pool, kernels);
    const double step_s =
        stopwatch.Shortest([&] { all.Forward(1, 0); }) / n_layers;
    const double few_s = stopwatch.Shortest([&] { one.Forward(kFew, 0); });
    const double few_with_context_s =
        stopwatch.Shortest([&] { one.Forward(kFew, kContext - 1); });
    const double many_s = stopwatch.Shortest([&] { one.Forward(kMany, 0); });
    // Few are no faster than one: its layers came from memory.
    const TimeLine line =
        FitLine({{1, step_s},
                 {static_cast<double>(kFew), std::max(few_s, step_s)},
                 {static_cast<double>(kMany), std::max(many_s, step_s)}});
    times.layer_step_s = line.base_s;
    times.layer_token_s = line.each_s;
    times.layer_context_s =
        std::max(0.0, few_with_context_s - few_s) / (kFew * (kContext - 1));
  }
  ASSIGN_OR_RETURN(Head head, MakeHead(config, pool));
  std::shared_ptr<StageWeights> with_head = make(1);
  with_head->spec.range.has_head = true;
  with_head->config.vocab_size = head.view.n_rows;
  with_head->output_norm.assign(config.hidden_size, 1.0f);
  with_head->head_int8 = head.view;
  Model model(with_head, kv.get(), pool, kernels);
  model.Forward(kHeadRows, 0, /*n_logits=*/1);
  const double one_s = stopwatch.Shortest([&] { model.Logits(1); });
  const double rows_s = stopwatch.Shortest([&] { model.Logits(kHeadRows); });
  const TimeLine line =
      FitLine({{1, one_s}, {static_cast<double>(kHeadRows), rows_s}});
  const double part = static_cast<double>(config.vocab_size) / head.view.n_rows;
  times.head_step_s = line.base_s * part;
  times.head_row_s = line.each_s * part;
  return times;
}

}  // namespace tern
