#include "model/stage_plan.h"

#include <algorithm>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace tern {
namespace {

constexpr int64_t kPanelRows = 32;
constexpr int64_t kHeadPanelRows = 16;

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

int64_t LayerNormBytes(const ModelConfig& config) {
  const int64_t elements =
      2 * int64_t{config.hidden_size} +
      (config.has_sub_norms ? config.q_size() + config.ffn_size : 0);
  return elements * static_cast<int64_t>(sizeof(float));
}

}  // namespace

int64_t LayerBytes(const ModelConfig& config, const PackedBlocks& blocks) {
  const auto matrix_bytes = [&](int64_t n_out, int64_t n_in) {
    return CeilDiv(n_out, kPanelRows) * CeilDiv(n_in, blocks.columns) *
           blocks.bytes;
  };
  const int64_t hidden = config.hidden_size;
  return matrix_bytes(config.q_size(), hidden) +
         2 * matrix_bytes(config.kv_size(), hidden) +
         matrix_bytes(hidden, config.q_size()) +
         2 * matrix_bytes(config.ffn_size, hidden) +
         matrix_bytes(hidden, config.ffn_size);
}

int64_t HeadBytes(const ModelConfig& config, bool head_int8,
                  int64_t head_row_bytes) {
  if (!head_int8) return config.vocab_size * head_row_bytes;
  // Two planes of half a byte an element, and two floats a row.
  const int64_t row_bytes =
      int64_t{config.hidden_size} + 2 * static_cast<int64_t>(sizeof(float));
  return CeilDiv(config.vocab_size, kHeadPanelRows) * kHeadPanelRows *
         row_bytes;
}

StageCost CostOf(const ModelConfig& config, const StageRange& stage,
                 bool head_int8, int64_t head_row_bytes, int kv_block_size,
                 const PackedBlocks& blocks) {
  const int64_t n_layers = stage.layer_end - stage.layer_begin;
  StageCost cost;
  cost.weight_bytes =
      n_layers * (LayerBytes(config, blocks) + LayerNormBytes(config));
  if (stage.has_head) {
    cost.weight_bytes +=
        HeadBytes(config, head_int8, head_row_bytes) +
        config.hidden_size * static_cast<int64_t>(sizeof(float));
  }
  // Keys and values, float16.
  cost.kv_block_bytes =
      n_layers * 2 * int64_t{config.kv_size()} * kv_block_size * 2;
  return cost;
}

int64_t BoundaryBlockBytes(const ModelConfig& config, int kv_block_size) {
  return int64_t{config.hidden_size} * kv_block_size * sizeof(float);
}

absl::StatusOr<std::vector<StageRange>> PlanStages(const ModelConfig& config,
                                                   int n_stages, bool head_int8,
                                                   int64_t head_row_bytes,
                                                   const PackedBlocks& blocks) {
  if (n_stages < 1 || n_stages > config.n_layers) {
    return absl::InvalidArgumentError(
        absl::StrCat("cannot cut ", config.n_layers, " layers into ", n_stages,
                     " stages; 1 to ", config.n_layers, " are possible"));
  }
  const auto cost = [&](int n_layers, bool has_head) {
    return CostOf(config, {0, n_layers, false, has_head}, head_int8,
                  head_row_bytes, /*kv_block_size=*/1, blocks)
        .weight_bytes;
  };
  // All layers cost the same, so that the size of the last stage decides the
  // largest cost of the others: that of an even cut of the rest.
  int64_t least = -1;
  for (int last = 1; last <= config.n_layers - (n_stages - 1); ++last) {
    int64_t largest = cost(last, true);
    if (n_stages == 1) {
      if (last != config.n_layers) continue;
    } else {
      const int others = config.n_layers - last;
      largest = std::max(
          largest,
          cost(static_cast<int>(CeilDiv(others, n_stages - 1)), false));
    }
    if (least < 0 || largest < least) least = largest;
  }
  // Earlier stages as large as `least` and one layer for each later stage
  // allow; taking a layer early only makes later stages smaller.
  std::vector<StageRange> stages;
  int layer = 0;
  for (int stage = 0; stage < n_stages; ++stage) {
    const bool is_last = stage == n_stages - 1;
    const int most = config.n_layers - layer - (n_stages - 1 - stage);
    const int64_t fits = least / cost(1, false);
    const int size =
        is_last ? most : static_cast<int>(std::min<int64_t>(most, fits));
    stages.push_back({layer, layer + size, stage == 0, is_last});
    layer += size;
  }
  return stages;
}

}  // namespace tern
