#include "worker/stage_weights.h"

#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "gtest/gtest.h"
#include "kernels/head.h"
#include "kernels/ternary_layout.h"
#include "model/model_source.h"
#include "model/stage_plan.h"
#include "model/weights.h"
#include "tests/testing/gguf_builder.h"
#include "tests/testing/tiny_model.h"
#include "util/logging.h"
#include "worker/huge_buffer.h"
#include "worker/machine.h"
#include "worker/thread_placement.h"
#include "worker/thread_pool.h"

namespace tern {
namespace {

testing::TinyModelOptions ModelOptions() {
  testing::TinyModelOptions options;
  options.n_layers = 3;
  return options;
}

struct Model {
  testing::Bytes bytes;
  std::shared_ptr<const ModelSource> source;
};

std::unique_ptr<Model> Open(testing::Bytes bytes) {
  auto model = std::make_unique<Model>();
  model->bytes = std::move(bytes);
  auto source = ModelSource::FromGguf(model->bytes);
  CHECK(source.ok()) << source.status().ToString();
  model->source = std::move(source).value();
  return model;
}

StageSpec Spec(int begin, int end, bool has_embedding, bool has_head,
               HeadMode mode = HeadMode::kInt8) {
  return {{begin, end, has_embedding, has_head}, mode};
}

absl::StatusOr<std::shared_ptr<const StageWeights>> Load(const Model& model,
                                                         const StageSpec& spec,
                                                         int n_threads = 2) {
  ThreadPool pool(n_threads);
  return LoadStageWeights(
      model.source, spec, &pool, [](int64_t, int64_t) {}, [] { return false; });
}

// The bytes of one tensor, to be changed.
testing::GgufBuilder Damage(absl::string_view name, size_t offset,
                            std::vector<uint8_t> bytes) {
  testing::GgufBuilder builder = testing::TinyModel(ModelOptions());
  testing::GgufBuilder::Tensor* const tensor = builder.MutableTensor(name);
  CHECK(tensor != nullptr);
  for (size_t i = 0; i < bytes.size(); ++i) tensor->data[offset + i] = bytes[i];
  return builder;
}

using Tensors = std::vector<const TernaryTensor*>;

std::vector<std::pair<const MatrixGroup*, Tensors>> GroupsOf(
    const LayerWeights& layer, const LayerTensors& tensors) {
  return {{&layer.qkv, {&tensors.q, &tensors.k, &tensors.v}},
          {&layer.output, {&tensors.o}},
          {&layer.gate_up, {&tensors.gate, &tensors.up}},
          {&layer.down, {&tensors.down}}};
}

// Every row of every matrix once, in order, with the file's weights.
void ExpectHolds(const MatrixGroup& group, const Tensors& tensors,
                 TernaryPacking packing) {
  ASSERT_EQ(group.n_out.size(), tensors.size());
  size_t next = 0;  // slice
  for (size_t matrix = 0; matrix < tensors.size(); ++matrix) {
    const TernaryTensor& tensor = *tensors[matrix];
    EXPECT_EQ(group.n_out[matrix], tensor.n_out);
    std::vector<uint8_t> codes(tensor.n_out * tensor.n_in);
    ASSERT_TRUE(DecodeTernaryRows(tensor, 0, tensor.n_out, codes.data()).ok());
    int first = 0;
    while (first < tensor.n_out) {
      ASSERT_LT(next, group.slices.size());
      const MatrixSlice& slice = group.slices[next++];
      const TernaryView& view = slice.view;
      ASSERT_EQ(slice.matrix, static_cast<int>(matrix));
      ASSERT_EQ(slice.row_begin, first);
      ASSERT_GT(view.n_out, 0);
      ASSERT_LE(first + view.n_out, tensor.n_out);
      ASSERT_EQ(view.n_in, tensor.n_in);
      EXPECT_EQ(first % kPanelRows, 0);
      EXPECT_EQ(view.scale, tensor.scale);
      EXPECT_EQ(view.packing, packing);
      EXPECT_EQ(reinterpret_cast<uintptr_t>(view.packed) % kPackedAlignment,
                0u);
      int n_wrong = 0;
      for (int row = 0; row < view.n_out; ++row) {
        for (int column = 0; column < view.n_in; ++column) {
          n_wrong += TernaryWeightAt(view, row, column) !=
                     codes[(first + row) * tensor.n_in + column] - 1;
        }
      }
      EXPECT_EQ(n_wrong, 0);
      first += view.n_out;
    }
  }
  EXPECT_EQ(next, group.slices.size());
}

class StageWeightsPacking : public ::testing::TestWithParam<TernaryPacking> {};

TEST_P(StageWeightsPacking, MatricesHoldTheFilesWeights) {
  auto options = ModelOptions();
  options.vocab_size = 325;  // the last panel of the head is not full
  const auto model = Open(testing::TinyModelBytes(options));
  StageSpec spec = Spec(1, 3, false, true);
  spec.packing = GetParam();
  const auto weights = Load(*model, spec);
  ASSERT_TRUE(weights.ok()) << weights.status();
  ASSERT_EQ((*weights)->layers.size(), 2u);
  const Int8View& head = (*weights)->head_int8;
  const int64_t head_bytes = 2 * Int8PlaneBytes(head.n_rows, head.n_columns) +
                             (*weights)->head_row_scale.size() * sizeof(float) +
                             (*weights)->head_lower_norm.size() * sizeof(float);
  int64_t bytes = head_bytes;
  for (int i = 0; i < 2; ++i) {
    const auto tensors = model->source->FindLayer(1 + i);
    ASSERT_TRUE(tensors.ok());
    const LayerWeights& layer = (*weights)->layers[i];
    EXPECT_EQ(layer.attn_norm, tensors->attn_norm);
    EXPECT_EQ(layer.attn_sub_norm, tensors->attn_sub_norm);
    EXPECT_EQ(layer.ffn_norm, tensors->ffn_norm);
    EXPECT_EQ(layer.ffn_sub_norm, tensors->ffn_sub_norm);
    for (const auto& [group, members] : GroupsOf(layer, *tensors)) {
      ExpectHolds(*group, members, GetParam());
      for (const TernaryTensor* tensor : members) {
        bytes += PackedBytes(tensor->n_out, tensor->n_in, GetParam());
      }
    }
  }
  EXPECT_EQ((*weights)->bytes, bytes);
  // Placement foresees the same.
  const PackedBlocks blocks = {BlockColumns(GetParam()),
                               BlockBytes(GetParam())};
  const ModelConfig& config = model->source->config();
  EXPECT_EQ(2 * LayerBytes(config, blocks) + HeadBytes(config, true, 0), bytes);
}

// Threads on two nodes of a machine that has one: what matters is where the
// slices lie.
ThreadPlacement OnTwoNodes(int n_threads, int n_on_first) {
  ThreadPlacement placement;
  placement.n_threads = n_threads;
  for (int i = 0; i < n_threads; ++i) {
    placement.processors.push_back(AllowedProcessors()[0]);
    placement.nodes.push_back(i < n_on_first ? 0 : 1);
  }
  return placement;
}

TEST_P(StageWeightsPacking, EachNodeHasWhatItsThreadsReadInPagesOfItsOwn) {
  const auto model = Open(testing::TinyModelBytes(ModelOptions()));
  StageSpec spec = Spec(0, 3, true, true);
  spec.packing = GetParam();
  ThreadPool pool(OnTwoNodes(3, 2));
  const auto weights = LoadStageWeights(
      model->source, spec, &pool, [](int64_t, int64_t) {},
      [] { return false; });
  ASSERT_TRUE(weights.ok()) << weights.status();
  const uint8_t* const packed = (*weights)->packed.data();
  std::set<int64_t> pages[2];
  int n_cut = 0;
  for (int i = 0; i < 3; ++i) {
    const auto tensors = model->source->FindLayer(i);
    ASSERT_TRUE(tensors.ok());
    for (const auto& [group, members] :
         GroupsOf((*weights)->layers[i], *tensors)) {
      ExpectHolds(*group, members, GetParam());
      // The third of three threads has the last third of ParallelFor().
      const int64_t n_panels = group->panel_count();
      int64_t panel = 0;
      for (const MatrixSlice& slice : group->slices) {
        const int64_t n = PanelCount(slice.view.n_out);
        const int node = panel < n_panels * 2 / 3 ? 0 : 1;
        EXPECT_TRUE(node == 1 || panel + n <= n_panels * 2 / 3);
        const int64_t begin = slice.view.packed - packed;
        const int64_t bytes =
            n * PanelBytes(slice.view.n_in, slice.view.packing);
        for (const int64_t at : {begin, begin + bytes - 1}) {
          pages[node].insert(at / int64_t{HugeBuffer::kAlignment});
        }
        n_cut += slice.row_begin > 0;
        panel += n;
      }
      EXPECT_EQ(panel, n_panels);
    }
  }
  EXPECT_GT(n_cut, 0);
  for (const int64_t page : pages[0]) EXPECT_EQ(pages[1].count(page), 0u);
}

INSTANTIATE_TEST_SUITE_P(
    Packings, StageWeightsPacking, ::testing::ValuesIn(kAllTernaryPackings),
    [](const ::testing::TestParamInfo<TernaryPacking>& info) {
      return std::string(TernaryPackingName(info.param));
    });

TEST(StageWeights, AStageHoldsItsEndsOnly) {
  const auto model = Open(testing::TinyModelBytes(ModelOptions()));
  const auto first = Load(*model, Spec(0, 1, true, false));
  ASSERT_TRUE(first.ok());
  EXPECT_NE((*first)->embedding.data, nullptr);
  EXPECT_TRUE((*first)->output_norm.empty());
  EXPECT_EQ((*first)->head_int8.upper, nullptr);
  const auto last = Load(*model, Spec(1, 3, false, true, HeadMode::kStored));
  ASSERT_TRUE(last.ok());
  EXPECT_EQ((*last)->embedding.data, nullptr);
  EXPECT_NE((*last)->head_stored.data, nullptr);
  EXPECT_EQ((*last)->head_int8.upper, nullptr);
}

TEST(StageWeights, ProgressEndsAtTheTotal) {
  const auto model = Open(testing::TinyModelBytes(ModelOptions()));
  for (const HeadMode mode : {HeadMode::kStored, HeadMode::kInt8}) {
    ThreadPool pool(2);
    int64_t last = -1;
    int64_t total = 0;
    const auto weights = LoadStageWeights(
        model->source, Spec(0, 3, true, true, mode), &pool,
        [&](int64_t done, int64_t all) {
          EXPECT_GT(done, last);
          last = done;
          total = all;
        },
        [] { return false; });
    ASSERT_TRUE(weights.ok());
    EXPECT_EQ(last, total);
    EXPECT_EQ((*weights)->bytes, total);
  }
}

TEST(StageWeights, LoadingCanBeCancelledAtAnyTime) {
  const auto model = Open(testing::TinyModelBytes(ModelOptions()));
  ThreadPool pool(2);
  for (int n_allowed = 0; n_allowed < 14; n_allowed += 3) {
    int n_asked = 0;
    const auto weights = LoadStageWeights(
        model->source, Spec(0, 3, true, true), &pool, [](int64_t, int64_t) {},
        [&] { return n_asked++ >= n_allowed; });
    EXPECT_TRUE(absl::IsCancelled(weights.status())) << weights.status();
  }
}

TEST(StageWeights, LayersThatAreNotThereAreRefused) {
  const auto model = Open(testing::TinyModelBytes(ModelOptions()));
  for (const auto& [begin, end] :
       std::vector<std::pair<int, int>>{{-1, 1}, {0, 4}, {2, 2}, {2, 1}}) {
    EXPECT_TRUE(absl::IsInvalidArgument(
        Load(*model, Spec(begin, end, true, true)).status()));
  }
}

// A NaN in float16, little-endian, is 0x7e00.
TEST(StageWeights, AHeadThatIsNotFiniteIsDataLoss) {
  const auto model =
      Open(Damage("token_embd.weight", 2 * 64 * 77, {0x00, 0x7e}).Build());
  for (const HeadMode mode : {HeadMode::kStored, HeadMode::kInt8}) {
    const absl::Status status =
        Load(*model, Spec(0, 3, true, true, mode)).status();
    EXPECT_TRUE(absl::IsDataLoss(status)) << status;
    EXPECT_NE(status.message().find("row 77 of token_embd.weight"),
              absl::string_view::npos)
        << status;
  }
  EXPECT_TRUE(Load(*model, Spec(0, 2, true, false)).ok());
}

TEST(StageWeights, ANormThatIsNotFiniteIsRefused) {
  for (const char* const name :
       {"blk.1.attn_norm.weight", "blk.1.attn_sub_norm.weight",
        "blk.1.ffn_norm.weight", "blk.1.ffn_sub_norm.weight",
        "output_norm.weight"}) {
    const auto model = Open(Damage(name, 4 * 9, {0, 0, 0x80, 0x7f}).Build());
    const absl::Status status = Load(*model, Spec(0, 3, true, true)).status();
    EXPECT_FALSE(status.ok());
    EXPECT_NE(status.message().find(name), absl::string_view::npos) << status;
  }
}

// Four codes 3.
TEST(StageWeights, ATernaryCodeThatCannotBeIsDataLoss) {
  const auto model = Open(Damage("blk.1.ffn_up.weight", 5, {0xff}).Build());
  const absl::Status status = Load(*model, Spec(0, 3, true, true)).status();
  EXPECT_TRUE(absl::IsDataLoss(status)) << status;
  EXPECT_TRUE(Load(*model, Spec(2, 3, false, true)).ok());
}

}  // namespace
}  // namespace tern
