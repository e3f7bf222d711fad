// A whole stage on a device against the CPU's: the same logits, tokens, hidden
// states and bytes of keys and values, whichever of the two has which layers.

#include "worker/gpu/device_stage.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gtest/gtest.h"
#include "kernels/attention.h"
#include "kernels/cuda/attention_plan.h"
#include "kernels/cuda/head_tiles.h"
#include "kernels/cuda/ternary_tiles.h"
#include "kernels/cuda/test_device.h"
#include "kernels/head.h"
#include "kernels/kernels.h"
#include "kernels/rope_table.h"
#include "kernels/ternary_layout.h"
#include "model/model_source.h"
#include "tests/testing/tiny_model.h"
#include "util/logging.h"
#include "worker/kv_cache.h"
#include "worker/sampler.h"
#include "worker/stage.h"
#include "worker/stage_weights.h"
#include "worker/thread_pool.h"

namespace tern {
namespace {

using cuda::TestDevice;

constexpr int kLayers = 3;
constexpr int kBlocks = 24;
constexpr int kTokensMax = 96;

// Of one sequence, in one step.
struct Row {
  std::vector<int32_t> tokens;
  int32_t position;
  std::vector<int32_t> table;
};

// Rows of a group as the device has them.
DeviceMatrix Upload(const MatrixGroup& group, int n_in, TestDevice* device) {
  std::vector<int> first_row(1, 0);
  for (const int n : group.n_out) first_row.push_back(first_row.back() + n);
  const int n_out = first_row.back();
  std::vector<uint8_t> codes(static_cast<size_t>(n_out) * n_in);
  std::vector<float> scale(n_out);
  for (const MatrixSlice& slice : group.slices) {
    for (int r = 0; r < slice.view.n_out; ++r) {
      const int row = first_row[slice.matrix] + slice.row_begin + r;
      scale[row] = slice.view.scale;
      for (int k = 0; k < n_in; ++k) {
        codes[static_cast<size_t>(row) * n_in + k] =
            static_cast<uint8_t>(TernaryWeightAt(slice.view, r, k) + 1);
      }
    }
  }
  std::vector<uint8_t> tiles(TernaryTilesBytes(n_out, n_in));
  for (int row = 0; row < n_out; row += kTileRows) {
    PackTernaryTiles(&codes[static_cast<size_t>(row) * n_in],
                     std::min(kTileRows, n_out - row), n_in,
                     &tiles[static_cast<size_t>(row / kTileRows) *
                            ColumnTiles(n_in) * kTileBytes]);
  }
  return {reinterpret_cast<const simt::Words4*>(device->Input(tiles)),
          device->Input(scale), n_out};
}

const float* UploadNorm(const std::vector<float>& norm, TestDevice* device) {
  return norm.empty() ? nullptr : device->Input(norm);
}

// A model on the CPU and layers [layer_begin, layer_end) of it on a device.
class Worker {
 public:
  Worker(const testing::TinyModelOptions& options, TestDevice* device)
      : bytes_(testing::TinyModelBytes(options)), pool_(1), device_(device) {
    auto opened = ModelSource::FromGguf(bytes_);
    CHECK(opened.ok()) << opened.status().ToString();
    source_ = *std::move(opened);
  }

  const ModelConfig& config() const { return source_->config(); }

  std::shared_ptr<const StageWeights> Load(int begin, int end, HeadMode mode) {
    auto weights = LoadStageWeights(
        source_, {{begin, end, begin == 0, end == kLayers}, mode}, &pool_,
        [](int64_t, int64_t) {}, [] { return false; });
    CHECK(weights.ok()) << weights.status().ToString();
    return *std::move(weights);
  }

  std::unique_ptr<KvCache> MakeKv(int n_layers) {
    auto kv = KvCache::Create({n_layers, config().n_kv_heads, config().head_dim,
                               kBlocks, config().context_length});
    CHECK(kv.ok()) << kv.status().ToString();
    return *std::move(kv);
  }

  DeviceModel OnDevice(int begin, int end) {
    const std::shared_ptr<const StageWeights> weights =
        Load(begin, end, HeadMode::kStored);
    const ModelConfig& c = config();
    DeviceModel model = {};
    model.config = c;
    const size_t pool = kBlocks * KvBlockElements(c.n_kv_heads, c.head_dim);
    for (const LayerWeights& w : weights->layers) {
      model.layers.push_back({UploadNorm(w.attn_norm, device_),
                              UploadNorm(w.attn_sub_norm, device_),
                              UploadNorm(w.ffn_norm, device_),
                              UploadNorm(w.ffn_sub_norm, device_),
                              Upload(w.qkv, c.hidden_size, device_),
                              Upload(w.output, c.q_size(), device_),
                              Upload(w.gate_up, c.hidden_size, device_),
                              Upload(w.down, c.ffn_size, device_),
                              device_->InOut(std::vector<uint16_t>(pool)),
                              device_->InOut(std::vector<uint16_t>(pool))});
    }
    const RopeTable rope(c.head_dim, c.rope_theta, c.context_length);
    const size_t angles = size_t{1} * c.context_length * c.head_dim / 2;
    model.cos =
        device_->Input(std::vector<float>(rope.cos(0), rope.cos(0) + angles));
    model.sin =
        device_->Input(std::vector<float>(rope.sin(0), rope.sin(0) + angles));
    if (begin == 0) UploadEmbedding(weights->embedding, &model);
    if (end == kLayers) UploadHead(*weights, &model);
    return model;
  }

  DeviceRooms Rooms() {
    const absl::StatusOr<DeviceRooms> rooms =
        DeviceRooms::Make(config(), kTokensMax, 8, size_t{1} << 20,
                          [this](size_t bytes) -> absl::StatusOr<void*> {
                            void* const memory = device_->Allocate(bytes, true);
                            std::memset(memory, 0, bytes);
                            return memory;
                          });
    CHECK(rooms.ok()) << rooms.status().ToString();
    return *rooms;
  }

  ThreadPool* pool() { return &pool_; }

 private:
  void UploadEmbedding(const DenseView& e, DeviceModel* model) {
    const auto* const data = static_cast<const uint8_t*>(e.data);
    model->embedding = device_->Input(std::vector<uint8_t>(
        data, data + e.n_rows * DenseRowBytes(e.type, e.n_columns)));
    model->embedding_type = e.type;
  }

  void UploadHead(const StageWeights& weights, DeviceModel* model) {
    const DenseView& head = weights.head_stored;
    std::vector<int8_t> tiles(
        cuda::HeadTilesBytes(head.n_rows, head.n_columns));
    std::vector<float> scale;
    std::vector<float> row(head.n_columns);
    std::vector<int8_t> q(head.n_columns);
    for (int r = 0; r < head.n_rows; ++r) {
      DenseRow(head, r, row.data());
      scale.push_back(BestKernels().quantize_head_row(
          row.data(), head.n_columns, q.data()));
      cuda::PlaceHeadRow(q.data(), head.n_columns, r, tiles.data());
    }
    model->head_tiles = device_->Input(tiles);
    model->head_row_scale = device_->Input(scale);
    model->output_norm = device_->Input(weights.output_norm);
  }

  const testing::Bytes bytes_;
  ThreadPool pool_;
  TestDevice* const device_;
  std::shared_ptr<const ModelSource> source_;
};

// How the rows' tokens are sampled: greedily, or in some other way.
SamplerParams ParamsOf(size_t row, int step) {
  SamplerParams params;
  params.temperature = row == 0 ? 0 : 0.8f;
  params.top_k = row == 1 ? 20 : 0;
  params.top_p = row == 2 ? 0.9f : 1;
  params.seed = 100 * step + row;
  return params;
}

AttentionRuns Upload(const std::vector<cuda::AttentionRun>& runs,
                     TestDevice* device) {
  AttentionRuns out;
  if (runs.empty()) return out;
  out.runs = device->Input(runs);
  out.n_runs = static_cast<int>(runs.size());
  for (const cuda::AttentionRun& run : runs) {
    out.run_tokens_max = std::max(out.run_tokens_max, run.n_tokens);
    out.n_positions_max =
        std::max(out.n_positions_max, run.n_positions + run.n_tokens - 1);
  }
  return out;
}

// What the device reads of a step.
DeviceStep Upload(const std::vector<Row>& rows, const ModelConfig& c, int step,
                  TestDevice* device) {
  DeviceStep out = {};
  std::vector<int32_t> ids;
  std::vector<int32_t> tables;
  std::vector<cuda::TokenPlace> places;
  std::vector<cuda::AttentionRun> decoding;
  std::vector<cuda::AttentionRun> prompts;
  std::vector<int32_t> logit_rows;
  std::vector<cuda::SampleRow> samples;
  const int run_tokens = cuda::AttentionRunTokens(c.n_heads, c.n_kv_heads);
  for (const Row& row : rows) {
    const int n = static_cast<int>(row.tokens.size());
    for (int i = 0; i < n; i += run_tokens) {
      (n == 1 ? decoding : prompts)
          .push_back({static_cast<int32_t>(ids.size()) + i,
                      std::min(run_tokens, n - i), row.position + i + 1,
                      static_cast<int32_t>(tables.size())});
    }
    for (int i = 0; i < n; ++i) {
      const int position = row.position + i;
      places.push_back(
          {position, row.table[position / kKvBlockSize] * kKvBlockSize +
                         position % kKvBlockSize});
    }
    ids.insert(ids.end(), row.tokens.begin(), row.tokens.end());
    tables.insert(tables.end(), row.table.begin(), row.table.end());
    const SamplerParams params = ParamsOf(logit_rows.size(), step);
    cuda::SampleRow sample = {};
    sample.seed = params.seed;
    sample.position = static_cast<uint64_t>(row.position + n);
    sample.temperature = params.temperature;
    sample.top_k = params.top_k;
    sample.top_p = params.top_p;
    samples.push_back(sample);
    logit_rows.push_back(static_cast<int32_t>(ids.size()) - 1);
  }
  out.n_tokens = static_cast<int>(ids.size());
  out.n_logit_rows = static_cast<int>(logit_rows.size());
  out.ids = device->Input(ids);
  out.places = device->Input(places);
  out.block_tables = device->Input(tables);
  out.decoding = Upload(decoding, device);
  out.prompts = Upload(prompts, device);
  out.logit_rows = device->Input(logit_rows);
  out.sample_rows = device->Input(samples);
  out.sampled = device->InOut(std::vector<int32_t>(rows.size(), -7));
  return out;
}

std::vector<MicroBatchRow> ForCpu(const std::vector<Row>& rows) {
  std::vector<MicroBatchRow> out;
  for (const Row& row : rows) {
    out.push_back({row.tokens, row.position, row.table, 1});
  }
  return out;
}

// Three sequences: prompts, decoding beside a prompt, decoding.
std::vector<std::vector<Row>> Steps() {
  const auto tokens = [](int n, int seed) {
    std::vector<int32_t> ids;
    for (int i = 0; i < n; ++i) ids.push_back((i * 37 + seed) % 256);
    return ids;
  };
  const std::vector<int32_t> a = {7, 2, 19, 4};
  const std::vector<int32_t> b = {11, 3};
  const std::vector<int32_t> c = {20, 1, 0, 5, 23, 9};
  return {{{tokens(37, 1), 0, a}, {tokens(5, 2), 0, b}},
          {{tokens(1, 3), 37, a}, {tokens(1, 4), 5, b}, {tokens(70, 5), 0, c}},
          {{tokens(1, 6), 38, a}, {tokens(1, 7), 6, b}, {tokens(1, 8), 70, c}}};
}

class DeviceStageTest : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    std::string reason;
    device_ = TestDevice::Create(&reason);
    if (device_ == nullptr) GTEST_SKIP() << reason;
    options_.architecture = GetParam();
    options_.n_layers = kLayers;
  }

  // The pools of layers [begin, end) hold the same bytes.
  static void ComparePools(const KvCache& kv, int begin,
                           const DeviceModel& model) {
    const size_t bytes =
        sizeof(uint16_t) * kBlocks *
        KvBlockElements(kv.shape().n_kv_heads, kv.shape().head_dim);
    for (size_t i = 0; i < model.layers.size(); ++i) {
      const int layer = begin + static_cast<int>(i);
      EXPECT_EQ(std::memcmp(kv.k_pool(layer), model.layers[i].k_pool, bytes), 0)
          << "keys of layer " << layer;
      EXPECT_EQ(std::memcmp(kv.v_pool(layer), model.layers[i].v_pool, bytes), 0)
          << "values of layer " << layer;
    }
  }

  static void CompareLogits(const Stage& cpu, const DeviceRooms& rooms,
                            const DeviceStep& step,
                            const std::vector<Row>& rows, int step_index) {
    SamplerScratch scratch;
    for (size_t i = 0; i < rows.size(); ++i) {
      const absl::Span<const float> logits = cpu.logits(static_cast<int>(i));
      EXPECT_EQ(std::memcmp(logits.data(), rooms.logits + i * logits.size(),
                            logits.size() * sizeof(float)),
                0)
          << "row " << i;
      const int position =
          rows[i].position + static_cast<int>(rows[i].tokens.size());
      const absl::StatusOr<int32_t> token =
          SampleToken(logits, ParamsOf(i, step_index), position, &scratch);
      ASSERT_TRUE(token.ok()) << token.status();
      EXPECT_EQ(*token, step.sampled[i]) << "row " << i;
    }
  }

  std::unique_ptr<TestDevice> device_;
  testing::TinyModelOptions options_;
};

TEST_P(DeviceStageTest, WholeModelEqualsTheCpu) {
  Worker worker(options_, device_.get());
  const ModelConfig& c = worker.config();
  const auto kv = worker.MakeKv(kLayers);
  Stage cpu(worker.Load(0, kLayers, HeadMode::kInt8), kv.get(), worker.pool(),
            &BestKernels(), kTokensMax);
  const DeviceModel model = worker.OnDevice(0, kLayers);
  const DeviceRooms rooms = worker.Rooms();
  DeviceStage stage(model, rooms, device_->limits(), device_.get());
  int index = 0;
  for (const std::vector<Row>& rows : Steps()) {
    SCOPED_TRACE(index);
    cpu.Forward(ForCpu(rows), cpu.hidden());
    cpu.ComputeLogits(0, static_cast<int>(rows.size()), cpu.hidden());
    const DeviceStep step = Upload(rows, c, index, device_.get());
    const absl::Status status = stage.Forward(step);
    ASSERT_TRUE(status.ok()) << status.ToString();
    CompareLogits(cpu, rooms, step, rows, index);
    ComparePools(*kv, 0, model);
    ++index;
  }
}

// Two stages, one on either: the hidden states that cross are the same bits.
TEST_P(DeviceStageTest, SharesAPipelineWithTheCpu) {
  constexpr int kCut = 2;
  Worker worker(options_, device_.get());
  const ModelConfig& c = worker.config();
  const auto kv = worker.MakeKv(kLayers);
  const auto first_kv = worker.MakeKv(kCut);
  Stage whole(worker.Load(0, kLayers, HeadMode::kInt8), kv.get(), worker.pool(),
              &BestKernels(), kTokensMax);
  Stage first(worker.Load(0, kCut, HeadMode::kInt8), first_kv.get(),
              worker.pool(), &BestKernels(), kTokensMax);
  const DeviceModel first_model = worker.OnDevice(0, kCut);
  const DeviceRooms first_rooms = worker.Rooms();
  DeviceStage device_first(first_model, first_rooms, device_->limits(),
                           device_.get());
  const DeviceModel last_model = worker.OnDevice(kCut, kLayers);
  const DeviceRooms rooms = worker.Rooms();
  DeviceStage device_last(last_model, rooms, device_->limits(), device_.get());
  int index = 0;
  for (const std::vector<Row>& rows : Steps()) {
    SCOPED_TRACE(index);
    whole.Forward(ForCpu(rows), whole.hidden());
    whole.ComputeLogits(0, static_cast<int>(rows.size()), whole.hidden());
    first.Forward(ForCpu(rows), first.hidden());
    const DeviceStep step = Upload(rows, c, index, device_.get());
    ASSERT_TRUE(device_first.Forward(step).ok());
    const size_t crossing = sizeof(float) * step.n_tokens * c.hidden_size;
    EXPECT_EQ(std::memcmp(first.hidden(), first_rooms.hidden, crossing), 0);
    std::memcpy(rooms.hidden, first.hidden(), crossing);
    ASSERT_TRUE(device_last.Forward(step).ok());
    CompareLogits(whole, rooms, step, rows, index);
    ComparePools(*kv, kCut, last_model);
    ++index;
  }
}

// A sequence that was decoded and one that is replayed as a prompt leave the
// same keys and values.
TEST_P(DeviceStageTest, ReplayLeavesTheSameKeysAndValues) {
  constexpr int kTokens = 20;
  Worker worker(options_, device_.get());
  const DeviceModel decoded = worker.OnDevice(0, kLayers);
  const DeviceModel replayed = worker.OnDevice(0, kLayers);
  const DeviceRooms rooms = worker.Rooms();
  DeviceStage decoding(decoded, rooms, device_->limits(), device_.get());
  DeviceStage replaying(replayed, rooms, device_->limits(), device_.get());
  Row all = {{}, 0, {6, 13}};
  for (int i = 0; i < kTokens; ++i) {
    const int32_t id = i * 11 % 256;
    all.tokens.push_back(id);
    const std::vector<Row> one = {{{id}, i, all.table}};
    ASSERT_TRUE(
        decoding.Forward(Upload(one, worker.config(), i, device_.get())).ok());
  }
  ASSERT_TRUE(
      replaying.Forward(Upload({all}, worker.config(), 0, device_.get())).ok());
  const size_t bytes =
      sizeof(uint16_t) * kBlocks *
      KvBlockElements(worker.config().n_kv_heads, worker.config().head_dim);
  for (int i = 0; i < kLayers; ++i) {
    EXPECT_EQ(
        std::memcmp(decoded.layers[i].k_pool, replayed.layers[i].k_pool, bytes),
        0);
    EXPECT_EQ(
        std::memcmp(decoded.layers[i].v_pool, replayed.layers[i].v_pool, bytes),
        0);
  }
}

INSTANTIATE_TEST_SUITE_P(Architectures, DeviceStageTest,
                         ::testing::Values("bitnet-b1.58", "llama"),
                         [](const auto& info) {
                           std::string name = info.param;
                           for (char& ch : name) {
                             if (!isalnum(ch)) ch = '_';
                           }
                           return name;
                         });

}  // namespace
}  // namespace tern
