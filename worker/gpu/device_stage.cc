#include "worker/gpu/device_stage.h"

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/embed_args.h"
#include "kernels/cuda/head_args.h"
#include "kernels/cuda/normalise_args.h"
#include "kernels/cuda/ternary_matmul_args.h"
#include "kernels/cuda/ternary_plan.h"
#include "util/status_macros.h"

namespace tern {
namespace {

using cuda::NormaliseInput;

int QkvSize(const ModelConfig& c) { return c.q_size() + 2 * c.kv_size(); }

int WidestInput(const ModelConfig& c) {
  return std::max({c.hidden_size, c.q_size(), c.ffn_size});
}

}  // namespace

absl::StatusOr<DeviceRooms> DeviceRooms::Make(
    const ModelConfig& c, int tokens_max, int logit_rows_max,
    size_t attention_partials_bytes,
    absl::FunctionRef<absl::StatusOr<void*>(size_t bytes)> allocate) {
  absl::Status status;
  const auto get = [&](auto** room, size_t n) {
    if (!status.ok()) return;
    const absl::StatusOr<void*> memory =
        allocate(std::max<size_t>(n, 1) * sizeof(**room));
    status = memory.status();
    if (!status.ok()) return;
    *room = static_cast<std::remove_reference_t<decltype(*room)>>(*memory);
  };
  const size_t tokens = tokens_max;
  const size_t widest_output =
      std::max({QkvSize(c), c.hidden_size, 2 * c.ffn_size});
  DeviceRooms rooms = {};
  get(&rooms.hidden, tokens * c.hidden_size);
  get(&rooms.qkv, tokens * QkvSize(c));
  get(&rooms.attended, tokens * c.q_size());
  get(&rooms.output, tokens * c.hidden_size);
  get(&rooms.gate_up, tokens * 2 * c.ffn_size);
  get(&rooms.down, tokens * c.hidden_size);
  get(&rooms.q, tokens * WidestInput(c));
  get(&rooms.s, tokens);
  get(&rooms.sum, tokens);
  get(&rooms.is_finite, logit_rows_max);
  get(&rooms.partial_sums, tokens * widest_output);
  get(&rooms.arrivals, tokens * widest_output);
  get(&rooms.attention_partials, attention_partials_bytes / sizeof(float));
  rooms.attention_partials_bytes = attention_partials_bytes;
  get(&rooms.logits, size_t{1} * logit_rows_max * c.vocab_size);
  RETURN_IF_ERROR(status);
  return rooms;
}

DeviceStage::DeviceStage(const DeviceModel& model, const DeviceRooms& rooms,
                         const DeviceLimits& limits, cuda::DeviceOps* ops)
    : model_(model),
      rooms_(rooms),
      limits_(limits),
      attention_scale_(static_cast<float>(
          1 / std::sqrt(static_cast<double>(model.config.head_dim)))),
      ops_(ops) {}

absl::Status DeviceStage::CheckShape(const ModelConfig& c) {
  RETURN_IF_ERROR(
      cuda::CheckAttentionShape(c.n_heads, c.n_kv_heads, c.head_dim));
  if (WidestInput(c) > cuda::kNormaliseColumnsMax) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the model has matrices of ", WidestInput(c),
        " columns; norms on a GPU take at most ", cuda::kNormaliseColumnsMax,
        "; serve this model by CPU workers"));
  }
  return absl::OkStatus();
}

absl::Status DeviceStage::Forward(const DeviceStep& step) {
  const ModelConfig& c = model_.config;
  if (model_.embedding != nullptr) {
    cuda::EmbedArgs args;
    args.table = model_.embedding;
    args.type = model_.embedding_type;
    args.ids = step.ids;
    args.x = rooms_.hidden;
    args.n = c.hidden_size;
    RETURN_IF_ERROR(ops_->Embed(args, step.n_tokens));
  }
  for (size_t i = 0; i < model_.layers.size(); ++i) {
    RETURN_IF_ERROR(RunLayer(model_.layers[i], i == 0, step));
  }
  if (model_.head_tiles != nullptr) return Head(step);
  return ops_->Add({rooms_.hidden, rooms_.down,
                    static_cast<int64_t>(step.n_tokens) * c.hidden_size});
}

// x = x + Wo Q(N(attention)), then x = x + Wdown Q(N(act(gate) * up)), whose
// sum whatever comes after makes.
absl::Status DeviceStage::RunLayer(const DeviceLayer& w, bool is_first,
                                   const DeviceStep& step) {
  const ModelConfig& c = model_.config;
  const int n = step.n_tokens;
  const int hidden = c.hidden_size;
  const NormaliseInput gate = c.activation == Activation::kRelu2
                                  ? NormaliseInput::kRelu2Gate
                                  : NormaliseInput::kSiluGate;

  RETURN_IF_ERROR(Normalise(
      is_first ? NormaliseInput::kPlain : NormaliseInput::kResidual,
      rooms_.hidden, hidden, rooms_.down, hidden, w.attn_norm, hidden, n));
  RETURN_IF_ERROR(Multiply(w.qkv, hidden, n, rooms_.qkv));
  RETURN_IF_ERROR(RotateAndStore(w, step));
  RETURN_IF_ERROR(Attend(w, step, step.decoding));
  RETURN_IF_ERROR(Attend(w, step, step.prompts));
  RETURN_IF_ERROR(Normalise(NormaliseInput::kPlain, rooms_.attended, c.q_size(),
                            nullptr, 0, w.attn_sub_norm, c.q_size(), n));
  RETURN_IF_ERROR(Multiply(w.output, c.q_size(), n, rooms_.output));

  RETURN_IF_ERROR(Normalise(NormaliseInput::kResidual, rooms_.hidden, hidden,
                            rooms_.output, hidden, w.ffn_norm, hidden, n));
  RETURN_IF_ERROR(Multiply(w.gate_up, hidden, n, rooms_.gate_up));
  RETURN_IF_ERROR(Normalise(gate, rooms_.gate_up, 2 * c.ffn_size,
                            rooms_.gate_up + c.ffn_size, 2 * c.ffn_size,
                            w.ffn_sub_norm, c.ffn_size, n));
  return Multiply(w.down, c.ffn_size, n, rooms_.down);
}

absl::Status DeviceStage::Normalise(NormaliseInput input, float* x,
                                    int64_t x_stride, const float* y,
                                    int64_t y_stride, const float* norm, int n,
                                    int n_tokens) {
  cuda::NormaliseArgs args;
  args.input = input;
  args.x = x;
  args.x_stride = x_stride;
  args.y = y;
  args.y_stride = y_stride;
  args.weight = norm;
  args.eps = model_.config.norm_eps;
  args.n = n;
  args.q = rooms_.q;
  args.s = rooms_.s;
  args.sum = rooms_.sum;
  return ops_->Normalise(args, n_tokens);
}

absl::Status DeviceStage::Multiply(const DeviceMatrix& m, int n_in,
                                   int n_tokens, float* y) {
  ASSIGN_OR_RETURN(const TernaryMatmulPlan plan,
                   PlanTernaryMatmul(limits_, n_tokens, m.n_out, n_in));
  TernaryMatmulArgs args = {};
  args.tiles = m.tiles;
  args.scale = m.scale;
  args.n_out = m.n_out;
  args.n_in = n_in;
  args.q = rooms_.q;
  args.s = rooms_.s;
  args.sum = rooms_.sum;
  args.n_tokens = n_tokens;
  args.y = y;
  args.y_stride = m.n_out;
  args.column_splits = plan.column_splits;
  args.partial_sums = rooms_.partial_sums;
  args.arrivals = rooms_.arrivals;
  return ops_->Multiply(plan, args);
}

absl::Status DeviceStage::RotateAndStore(const DeviceLayer& layer,
                                         const DeviceStep& step) {
  const ModelConfig& c = model_.config;
  cuda::RopeArgs args;
  args.q = rooms_.qkv;
  args.k = rooms_.qkv + c.q_size();
  args.v = args.k + c.kv_size();
  args.q_stride = args.kv_stride = QkvSize(c);
  args.places = step.places;
  args.cos = model_.cos;
  args.sin = model_.sin;
  args.k_pool = layer.k_pool;
  args.v_pool = layer.v_pool;
  args.n_heads = c.n_heads;
  args.n_kv_heads = c.n_kv_heads;
  args.head_dim = c.head_dim;
  args.is_neox = c.rope_kind == RopeKind::kNeox;
  return ops_->RotateAndStore(args, step.n_tokens);
}

absl::Status DeviceStage::Attend(const DeviceLayer& layer,
                                 const DeviceStep& step,
                                 const AttentionRuns& runs) {
  if (runs.n_runs == 0) return absl::OkStatus();
  const ModelConfig& c = model_.config;
  const cuda::AttentionWork work = {
      runs.n_runs,   runs.run_tokens_max, runs.n_positions_max,
      step.n_tokens, c.n_heads,           c.n_kv_heads,
      c.head_dim};
  const cuda::AttentionPlan plan =
      cuda::PlanAttention(work, limits_, rooms_.attention_partials_bytes);
  cuda::AttentionBatch batch;
  batch.q = rooms_.qkv;
  batch.q_stride = QkvSize(c);
  batch.k_pool = layer.k_pool;
  batch.v_pool = layer.v_pool;
  batch.block_tables = step.block_tables;
  batch.runs = runs.runs;
  batch.n_runs = runs.n_runs;
  batch.n_heads = c.n_heads;
  batch.n_kv_heads = c.n_kv_heads;
  batch.head_dim = c.head_dim;
  batch.scale = attention_scale_;
  batch.y = rooms_.attended;
  batch.run_tokens_max = runs.run_tokens_max;
  batch.partials = plan.splits ? rooms_.attention_partials : nullptr;
  batch.n_tokens = step.n_tokens;
  return ops_->Attend(plan, batch);
}

absl::Status DeviceStage::Head(const DeviceStep& step) {
  if (step.n_logit_rows == 0) return absl::OkStatus();
  const ModelConfig& c = model_.config;
  cuda::NormaliseArgs norm;
  norm.input = NormaliseInput::kResidual;
  norm.x = rooms_.hidden;
  norm.y = rooms_.down;
  norm.x_stride = norm.y_stride = c.hidden_size;
  norm.rows = step.logit_rows;
  norm.weight = model_.output_norm;
  norm.eps = c.norm_eps;
  norm.n = c.hidden_size;
  norm.q = rooms_.q;
  norm.s = rooms_.s;
  norm.sum = rooms_.sum;
  norm.is_finite = rooms_.is_finite;
  RETURN_IF_ERROR(ops_->Normalise(norm, step.n_logit_rows));

  cuda::HeadArgs head;
  head.tiles = model_.head_tiles;
  head.row_scale = model_.head_row_scale;
  head.q = rooms_.q;
  head.s = rooms_.s;
  head.logits = rooms_.logits;
  head.logits_stride = c.vocab_size;
  head.n_rows = c.vocab_size;
  head.n_columns = c.hidden_size;
  head.n_tokens = step.n_logit_rows;
  RETURN_IF_ERROR(ops_->HeadInt8(head));
  if (step.sample_rows == nullptr) return absl::OkStatus();

  cuda::SampleArgs sample;
  sample.logits = rooms_.logits;
  sample.logits_stride = c.vocab_size;
  sample.rows = step.sample_rows;
  sample.is_finite = rooms_.is_finite;
  sample.tokens = step.sampled;
  sample.vocab_size = c.vocab_size;
  return ops_->Sample(sample, step.n_logit_rows);
}

}  // namespace tern
