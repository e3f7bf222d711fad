#include "bench/gpu/ops_timing.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "bench/gpu/graph_timer.h"
#include "kernels/attention.h"
#include "kernels/cuda/attention.h"
#include "kernels/cuda/attention_batch.h"
#include "kernels/cuda/attention_plan.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/head.h"
#include "kernels/cuda/head_args.h"
#include "kernels/cuda/head_tiles.h"
#include "kernels/cuda/normalise.h"
#include "kernels/cuda/normalise_args.h"
#include "kernels/cuda/rope.h"
#include "kernels/cuda/rope_args.h"
#include "kernels/cuda/sample.h"
#include "kernels/cuda/sample_args.h"
#include "util/status_macros.h"

namespace tern {
namespace {

using cuda::AttentionBatch;
using cuda::AttentionPlan;
using cuda::AttentionRun;
using cuda::AttentionWork;

// 2B-4T.
constexpr int kLayers = 30;
constexpr int kHeads = 20;
constexpr int kKvHeads = 5;
constexpr int kHeadDim = 128;
constexpr int kHidden = 2560;
constexpr int kVocabulary = 128256;

constexpr int kReplays = 7;
// Calls in a graph, where one alone would be as short as the clock is coarse.
constexpr int kCalls = 20;
// Of what layers read in turn, more than any L2 has.
constexpr size_t kPoolBytesMax = size_t{8} << 30;
constexpr size_t kPartialsBytes = size_t{256} << 20;

// Device memory that lives as long as this.
class Arena {
 public:
  template <typename T>
  absl::StatusOr<T*> New(size_t n, uint8_t fill = 0) {
    ASSIGN_OR_RETURN(DeviceBuffer buffer,
                     DeviceBuffer::Allocate(n * sizeof(T)));
    RETURN_IF_ERROR(buffer.Fill(fill));
    buffers_.push_back(std::move(buffer));
    return buffers_.back().as<T>();
  }
  template <typename T>
  absl::StatusOr<T*> Upload(const std::vector<T>& values) {
    ASSIGN_OR_RETURN(T* const to, New<T>(values.size()));
    RETURN_IF_ERROR(
        buffers_.back().CopyFromHost(values.data(), values.size() * sizeof(T)));
    return to;
  }

 private:
  std::vector<DeviceBuffer> buffers_;
};

// `calls` calls of launch(i, stream) in a graph; seconds of one.
template <typename Launch>
absl::StatusOr<double> TimeCalls(int calls, Launch launch) {
  ASSIGN_OR_RETURN(const double seconds,
                   TimeGraph(
                       [&](CudaStream stream) {
                         for (int i = 0; i < calls; ++i) {
                           RETURN_IF_ERROR(launch(i, stream));
                         }
                         return absl::OkStatus();
                       },
                       kReplays));
  return seconds / calls;
}

// What comes in a step.
struct Sequences {
  std::vector<AttentionRun> runs;
  std::vector<int32_t> tables;
  int n_tokens = 0;
  double positions = 0;  // that all tokens see together
};

absl::StatusOr<double> TimeAttention(const DeviceInfo& device,
                                     const Sequences& sequences,
                                     const AttentionWork& work) {
  const size_t layer_elements =
      sequences.tables.size() * KvBlockElements(kKvHeads, kHeadDim);
  const int layers = std::clamp(
      static_cast<int>(kPoolBytesMax / (layer_elements * 2 * sizeof(uint16_t))),
      1, kLayers);
  Arena arena;
  // Small numbers: 0x1111 is 6e-4.
  ASSIGN_OR_RETURN(uint16_t* const k,
                   arena.New<uint16_t>(layer_elements * layers, 0x11));
  ASSIGN_OR_RETURN(uint16_t* const v,
                   arena.New<uint16_t>(layer_elements * layers, 0x11));
  AttentionBatch batch;
  const size_t outputs = static_cast<size_t>(work.n_tokens) * kHeads * kHeadDim;
  ASSIGN_OR_RETURN(batch.q, arena.Upload(std::vector<float>(outputs, 0.5f)));
  batch.q_stride = kHeads * kHeadDim;
  ASSIGN_OR_RETURN(batch.block_tables, arena.Upload(sequences.tables));
  ASSIGN_OR_RETURN(batch.runs, arena.Upload(sequences.runs));
  batch.n_runs = work.n_runs;
  batch.n_heads = kHeads;
  batch.n_kv_heads = kKvHeads;
  batch.head_dim = kHeadDim;
  batch.scale = static_cast<float>(1 / std::sqrt(double{kHeadDim}));
  ASSIGN_OR_RETURN(batch.y, arena.New<float>(outputs));
  batch.run_tokens_max = work.run_tokens_max;
  batch.n_tokens = work.n_tokens;
  const AttentionPlan plan =
      cuda::PlanAttention(work, device.limits, kPartialsBytes);
  if (plan.splits) {
    ASSIGN_OR_RETURN(
        batch.partials,
        arena.New<float>(cuda::AttentionPartialBytes(work) / sizeof(float)));
  }
  RETURN_IF_ERROR(cuda::PrepareAttention(device.limits.shared_bytes));
  return TimeCalls(layers, [&](int layer, CudaStream stream) {
    AttentionBatch of_layer = batch;
    of_layer.k_pool = k + layer_elements * layer;
    of_layer.v_pool = v + layer_elements * layer;
    return cuda::LaunchAttention(plan, of_layer, stream);
  });
}

// A sequence whose tokens [position, position + n_tokens) come, in runs.
void AddSequence(int position, int n_tokens, int tokens_per_run,
                 Sequences* to) {
  const int32_t table_begin = static_cast<int32_t>(to->tables.size());
  for (int i = 0; i < n_tokens; i += tokens_per_run) {
    to->runs.push_back({to->n_tokens + i,
                        std::min(tokens_per_run, n_tokens - i),
                        position + i + 1, table_begin});
  }
  for (int i = 0; i < n_tokens; ++i) to->positions += position + i + 1;
  to->n_tokens += n_tokens;
  const int blocks = (position + n_tokens + kKvBlockSize - 1) / kKvBlockSize;
  to->tables.resize(to->tables.size() + blocks);
}

// Gives out the blocks, far from each other, as they come to lie.
void FillTables(Sequences* to) {
  std::iota(to->tables.begin(), to->tables.end(), 0);
  std::mt19937 rng(1);
  std::shuffle(to->tables.begin(), to->tables.end(), rng);
}

// Keys and values of so many positions.
double KvBytes(double positions) {
  return positions * 2 * kKvHeads * kHeadDim * sizeof(uint16_t);
}

double AttentionFmas(double positions) {
  return positions * 2 * kHeads * kHeadDim;
}

}  // namespace

absl::StatusOr<OpTime> TimeDecodeAttention(const DeviceInfo& device, int batch,
                                           int context) {
  Sequences sequences;
  for (int i = 0; i < batch; ++i) {
    AddSequence(context - 1, 1, 1, &sequences);
  }
  FillTables(&sequences);
  const AttentionWork work = {batch,  1,        context, batch,
                              kHeads, kKvHeads, kHeadDim};
  ASSIGN_OR_RETURN(const double seconds,
                   TimeAttention(device, sequences, work));
  return OpTime{
      absl::StrCat("attention, ", batch, " x 1 token after ", context), seconds,
      KvBytes(sequences.positions), AttentionFmas(sequences.positions)};
}

absl::StatusOr<OpTime> TimePromptAttention(const DeviceInfo& device,
                                           int prompt_tokens, int tokens) {
  const int run_tokens = cuda::AttentionRunTokens(kHeads, kKvHeads);
  Sequences sequences;
  while (sequences.n_tokens < tokens) {
    AddSequence(0, prompt_tokens, run_tokens, &sequences);
  }
  FillTables(&sequences);
  const AttentionWork work = {static_cast<int>(sequences.runs.size()),
                              run_tokens,
                              prompt_tokens,
                              sequences.n_tokens,
                              kHeads,
                              kKvHeads,
                              kHeadDim};
  ASSIGN_OR_RETURN(const double seconds,
                   TimeAttention(device, sequences, work));
  return OpTime{absl::StrCat("attention, prompts of ", prompt_tokens, ", ",
                             sequences.n_tokens, " tokens"),
                seconds, KvBytes(sequences.n_tokens),
                AttentionFmas(sequences.positions)};
}

absl::StatusOr<OpTime> TimeNormalise(int tokens, int n,
                                     cuda::NormaliseInput input) {
  Arena arena;
  const size_t elements = static_cast<size_t>(tokens) * n;
  cuda::NormaliseArgs args;
  args.input = input;
  args.x_stride = args.y_stride = n;
  ASSIGN_OR_RETURN(args.x, arena.Upload(std::vector<float>(elements, 0.5f)));
  ASSIGN_OR_RETURN(args.y, arena.New<float>(elements));
  ASSIGN_OR_RETURN(args.weight, arena.Upload(std::vector<float>(n, 1.0f)));
  args.eps = 1e-5f;
  args.n = n;
  ASSIGN_OR_RETURN(args.q, arena.New<int8_t>(elements));
  ASSIGN_OR_RETURN(args.s, arena.New<float>(tokens));
  ASSIGN_OR_RETURN(args.sum, arena.New<int32_t>(tokens));
  RETURN_IF_ERROR(cuda::PrepareNormalise(n));
  ASSIGN_OR_RETURN(const double seconds,
                   TimeCalls(kCalls, [&](int, CudaStream stream) {
                     return cuda::LaunchNormalise(args, tokens, stream);
                   }));
  const bool writes = input == cuda::NormaliseInput::kResidual;
  const bool has_y = input != cuda::NormaliseInput::kPlain;
  return OpTime{
      absl::StrCat("norm and quantiser, ", tokens, " x ", n,
                   writes  ? ", residual"
                   : has_y ? ", gate"
                           : ""),
      seconds,
      double{1} * elements * (4 + (has_y ? 4 : 0) + (writes ? 4 : 0) + 1), 0};
}

absl::StatusOr<OpTime> TimeRope(int tokens) {
  constexpr int kPositions = 4096;
  constexpr int kRow = (kHeads + 2 * kKvHeads) * kHeadDim;
  Arena arena;
  cuda::RopeArgs args;
  ASSIGN_OR_RETURN(float* const qkv,
                   arena.New<float>(static_cast<size_t>(tokens) * kRow));
  args.q = qkv;
  args.k = qkv + kHeads * kHeadDim;
  args.v = args.k + kKvHeads * kHeadDim;
  args.q_stride = args.kv_stride = kRow;
  std::vector<cuda::TokenPlace> places;
  for (int t = 0; t < tokens; ++t) places.push_back({t % kPositions, t});
  ASSIGN_OR_RETURN(args.places, arena.Upload(places));
  constexpr size_t kAngles = size_t{kPositions} * kHeadDim / 2;
  ASSIGN_OR_RETURN(args.cos, arena.New<float>(kAngles));
  ASSIGN_OR_RETURN(args.sin, arena.New<float>(kAngles));
  const size_t blocks = tokens / kKvBlockSize + 1;
  const size_t pool = blocks * KvBlockElements(kKvHeads, kHeadDim);
  ASSIGN_OR_RETURN(args.k_pool, arena.New<uint16_t>(pool));
  ASSIGN_OR_RETURN(args.v_pool, arena.New<uint16_t>(pool));
  args.n_heads = kHeads;
  args.n_kv_heads = kKvHeads;
  args.head_dim = kHeadDim;
  args.is_neox = true;
  ASSIGN_OR_RETURN(const double seconds,
                   TimeCalls(kCalls, [&](int, CudaStream stream) {
                     return cuda::LaunchRope(args, tokens, stream);
                   }));
  return OpTime{
      absl::StrCat("rope and append, ", tokens, " tokens"), seconds,
      double{1} * tokens *
          (kRow * 4 + kHeads * kHeadDim * 4 + 2 * kKvHeads * kHeadDim * 2),
      0};
}

absl::StatusOr<OpTime> TimeHead(int tokens) {
  Arena arena;
  cuda::HeadArgs args;
  const size_t bytes = cuda::HeadTilesBytes(kVocabulary, kHidden);
  ASSIGN_OR_RETURN(args.tiles, arena.New<int8_t>(bytes, 0x35));
  ASSIGN_OR_RETURN(args.row_scale, arena.New<float>(kVocabulary));
  ASSIGN_OR_RETURN(
      args.q, arena.New<int8_t>(static_cast<size_t>(tokens) * kHidden, 0x2b));
  ASSIGN_OR_RETURN(args.s, arena.Upload(std::vector<float>(tokens, 1.0f)));
  const size_t logits = static_cast<size_t>(tokens) * kVocabulary;
  ASSIGN_OR_RETURN(args.logits, arena.New<float>(logits));
  args.logits_stride = kVocabulary;
  args.n_rows = kVocabulary;
  args.n_columns = kHidden;
  args.n_tokens = tokens;
  ASSIGN_OR_RETURN(const double seconds,
                   TimeCalls(2, [&](int, CudaStream stream) {
                     return cuda::LaunchHeadInt8(args, stream);
                   }));
  return OpTime{absl::StrCat("head, ", tokens, " tokens"), seconds,
                double{1} * bytes + 4.0 * logits, 0};
}

absl::StatusOr<OpTime> TimeSample(int rows, float temperature, int top_k,
                                  float top_p) {
  Arena arena;
  std::mt19937 rng(1);
  std::normal_distribution<float> normal(0, 3);
  std::vector<float> logits(static_cast<size_t>(rows) * kVocabulary);
  for (float& logit : logits) logit = normal(rng);
  cuda::SampleRow row = {};
  row.temperature = temperature;
  row.top_k = top_k;
  row.top_p = top_p;
  cuda::SampleArgs args;
  ASSIGN_OR_RETURN(args.logits, arena.Upload(logits));
  args.logits_stride = kVocabulary;
  ASSIGN_OR_RETURN(args.rows,
                   arena.Upload(std::vector<cuda::SampleRow>(rows, row)));
  ASSIGN_OR_RETURN(args.tokens, arena.New<int32_t>(rows));
  args.vocab_size = kVocabulary;
  ASSIGN_OR_RETURN(const double seconds,
                   TimeCalls(2, [&](int, CudaStream stream) {
                     return cuda::LaunchSample(args, rows, stream);
                   }));
  return OpTime{absl::StrCat("sampling, ", rows, " rows, temperature ",
                             temperature, ", top-k ", top_k, ", top-p ", top_p),
                seconds, 4.0 * logits.size(), 0};
}

}  // namespace tern
