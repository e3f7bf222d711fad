// Whole steps of a model of 2B-4T's shape on the GPU of this machine: tokens a
// second, decoding and reading prompts, each step a graph. Weights are random:
// that results are right is for the tests whose names end in _gpu_test. Needs a
// driver and nothing else.

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <iostream>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "bench/gpu/graph_timer.h"
#include "kernels/attention.h"
#include "kernels/cuda/attention_batch.h"
#include "kernels/cuda/attention_plan.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/head_tiles.h"
#include "kernels/cuda/rope_args.h"
#include "kernels/cuda/sample_args.h"
#include "kernels/cuda/simt.h"
#include "kernels/cuda/ternary_tiles.h"
#include "kernels/head.h"
#include "model/model_config.h"
#include "nlohmann/json.hpp"
#include "util/status_macros.h"
#include "worker/gpu/device_stage.h"

ABSL_FLAG(std::string, json, "", "File to write the report to as JSON.");

namespace tern {
namespace {

constexpr int kReplays = 5;
constexpr size_t kPartialsBytes = size_t{256} << 20;

ModelConfig Shape2B4T() {
  ModelConfig c;
  c.n_layers = 30;
  c.hidden_size = 2560;
  c.ffn_size = 6912;
  c.n_heads = 20;
  c.n_kv_heads = 5;
  c.head_dim = 128;
  c.vocab_size = 128256;
  c.context_length = 4096;
  return c;
}

// Device memory that lives as long as this.
class Arena {
 public:
  absl::StatusOr<void*> Zeros(size_t bytes) {
    ASSIGN_OR_RETURN(DeviceBuffer buffer, DeviceBuffer::Allocate(bytes));
    RETURN_IF_ERROR(buffer.Fill(0));
    buffers_.push_back(std::move(buffer));
    return buffers_.back().data();
  }
  template <typename T>
  absl::StatusOr<T*> Upload(const std::vector<T>& values) {
    ASSIGN_OR_RETURN(void* const to, Zeros(values.size() * sizeof(T)));
    RETURN_IF_ERROR(
        buffers_.back().CopyFromHost(values.data(), values.size() * sizeof(T)));
    return static_cast<T*>(to);
  }

 private:
  std::vector<DeviceBuffer> buffers_;
};

absl::StatusOr<DeviceMatrix> RandomMatrix(int n_out, int n_in, Arena* arena) {
  std::mt19937 rng(n_out + n_in);
  std::vector<uint8_t> tiles(TernaryTilesBytes(n_out, n_in));
  for (uint8_t& byte : tiles) {
    for (int field = 0; field < 4; ++field) byte |= rng() % 3 << (2 * field);
  }
  ASSIGN_OR_RETURN(const uint8_t* const on_device, arena->Upload(tiles));
  ASSIGN_OR_RETURN(const float* const scale,
                   arena->Upload(std::vector<float>(n_out, 0.02f)));
  return DeviceMatrix{reinterpret_cast<const simt::Words4*>(on_device), scale,
                      n_out};
}

// The weights, without pools.
absl::StatusOr<DeviceModel> RandomModel(const ModelConfig& c, Arena* arena) {
  DeviceModel model = {};
  model.config = c;
  ASSIGN_OR_RETURN(const float* const ones,
                   arena->Upload(std::vector<float>(c.ffn_size, 1.0f)));
  for (int i = 0; i < c.n_layers; ++i) {
    DeviceLayer layer = {};
    layer.attn_norm = layer.attn_sub_norm = ones;
    layer.ffn_norm = layer.ffn_sub_norm = ones;
    ASSIGN_OR_RETURN(layer.qkv, RandomMatrix(c.q_size() + 2 * c.kv_size(),
                                             c.hidden_size, arena));
    ASSIGN_OR_RETURN(layer.output,
                     RandomMatrix(c.hidden_size, c.q_size(), arena));
    ASSIGN_OR_RETURN(layer.gate_up,
                     RandomMatrix(2 * c.ffn_size, c.hidden_size, arena));
    ASSIGN_OR_RETURN(layer.down,
                     RandomMatrix(c.hidden_size, c.ffn_size, arena));
    model.layers.push_back(layer);
  }
  const size_t angles = size_t{1} * c.context_length * c.head_dim / 2;
  ASSIGN_OR_RETURN(model.cos, arena->Upload(std::vector<float>(angles, 0.8f)));
  ASSIGN_OR_RETURN(model.sin, arena->Upload(std::vector<float>(angles, 0.6f)));
  std::mt19937 rng(1);
  std::vector<uint16_t> embedding(size_t{1} * c.vocab_size * c.hidden_size);
  // bfloat16 between 0.5 and 1, of either sign.
  for (uint16_t& e : embedding) {
    e = static_cast<uint16_t>(0x3f00 | (rng() & 0x807f));
  }
  ASSIGN_OR_RETURN(model.embedding, arena->Upload(embedding));
  model.embedding_type = DenseType::kBF16;
  std::vector<int8_t> head(cuda::HeadTilesBytes(c.vocab_size, c.hidden_size));
  for (int8_t& w : head) w = static_cast<int8_t>(rng() % 255 - 127);
  ASSIGN_OR_RETURN(model.head_tiles, arena->Upload(head));
  ASSIGN_OR_RETURN(model.head_row_scale,
                   arena->Upload(std::vector<float>(c.vocab_size, 1e-4f)));
  model.output_norm = ones;
  return model;
}

// `sequences` sequences of which `tokens` tokens each come after `position`,
// sampled greedily.
struct Load {
  int sequences;
  int position;
  int tokens;
};

absl::StatusOr<DeviceStep> UploadStep(const ModelConfig& c, const Load& load,
                                      int blocks_of_a_sequence, Arena* arena) {
  DeviceStep step = {};
  std::vector<int32_t> tables(load.sequences * blocks_of_a_sequence);
  std::iota(tables.begin(), tables.end(), 0);
  std::shuffle(tables.begin(), tables.end(), std::mt19937(1));
  std::vector<int32_t> ids;
  std::vector<cuda::TokenPlace> places;
  std::vector<cuda::AttentionRun> runs;
  std::vector<int32_t> logit_rows;
  const int run_tokens =
      std::min(load.tokens, cuda::AttentionRunTokens(c.n_heads, c.n_kv_heads));
  for (int s = 0; s < load.sequences; ++s) {
    const int table = s * blocks_of_a_sequence;
    for (int i = 0; i < load.tokens; ++i) {
      const int position = load.position + i;
      if (i % run_tokens == 0) {
        runs.push_back({static_cast<int32_t>(ids.size()),
                        std::min(run_tokens, load.tokens - i), position + 1,
                        table});
      }
      places.push_back(
          {position, tables[table + position / kKvBlockSize] * kKvBlockSize +
                         position % kKvBlockSize});
      ids.push_back(static_cast<int32_t>(ids.size()) * 7919 % c.vocab_size);
    }
    logit_rows.push_back(static_cast<int32_t>(ids.size()) - 1);
  }
  step.n_tokens = static_cast<int>(ids.size());
  AttentionRuns& of_kind = load.tokens == 1 ? step.decoding : step.prompts;
  of_kind.n_runs = static_cast<int>(runs.size());
  of_kind.run_tokens_max = run_tokens;
  of_kind.n_positions_max = load.position + load.tokens;
  step.n_logit_rows = load.sequences;
  ASSIGN_OR_RETURN(step.ids, arena->Upload(ids));
  ASSIGN_OR_RETURN(step.places, arena->Upload(places));
  ASSIGN_OR_RETURN(step.block_tables, arena->Upload(tables));
  ASSIGN_OR_RETURN(of_kind.runs, arena->Upload(runs));
  ASSIGN_OR_RETURN(step.logit_rows, arena->Upload(logit_rows));
  ASSIGN_OR_RETURN(step.sample_rows,
                   arena->Upload(std::vector<cuda::SampleRow>(load.sequences)));
  ASSIGN_OR_RETURN(step.sampled,
                   arena->Upload(std::vector<int32_t>(load.sequences)));
  return step;
}

// Seconds of a step, embedding and sampling included.
absl::StatusOr<double> TimeStep(const DeviceInfo& device,
                                const DeviceModel& weights, const Load& load) {
  const ModelConfig& c = weights.config;
  const int blocks =
      (load.position + load.tokens + kKvBlockSize - 1) / kKvBlockSize;
  Arena arena;
  DeviceModel model = weights;
  const size_t pool_bytes = sizeof(uint16_t) * blocks * load.sequences *
                            KvBlockElements(c.n_kv_heads, c.head_dim);
  for (DeviceLayer& layer : model.layers) {
    ASSIGN_OR_RETURN(void* const k, arena.Zeros(pool_bytes));
    ASSIGN_OR_RETURN(void* const v, arena.Zeros(pool_bytes));
    layer.k_pool = static_cast<uint16_t*>(k);
    layer.v_pool = static_cast<uint16_t*>(v);
  }
  ASSIGN_OR_RETURN(const DeviceStep step, UploadStep(c, load, blocks, &arena));
  ASSIGN_OR_RETURN(
      const DeviceRooms rooms,
      DeviceRooms::Make(c, step.n_tokens, step.n_logit_rows, kPartialsBytes,
                        [&arena](size_t bytes) { return arena.Zeros(bytes); }));
  return TimeGraph(
      [&](CudaStream stream) -> absl::Status {
        const std::unique_ptr<cuda::DeviceOps> ops = cuda::MakeCudaOps(stream);
        DeviceStage stage(model, rooms, device.limits, ops.get());
        return stage.Forward(step);
      },
      kReplays);
}

absl::Status Run() {
  if (CudaDeviceCount() == 0) {
    return absl::FailedPreconditionError("this machine has no CUDA device");
  }
  ASSIGN_OR_RETURN(const DeviceInfo device, GetDeviceInfo(0));
  const ModelConfig config = Shape2B4T();
  RETURN_IF_ERROR(cuda::PrepareCudaOps(device.limits, config.ffn_size));
  Arena arena;
  ASSIGN_OR_RETURN(const DeviceModel model, RandomModel(config, &arena));
  nlohmann::json report = {{"device", device.name},
                           {"steps", nlohmann::json::array()}};
  std::cout << device.name << ", 2B-4T with random weights\n\n"
            << "| step | ms | tokens/s |\n|---|--:|--:|\n";
  for (const Load& load :
       {Load{1, 511, 1}, Load{4, 511, 1}, Load{16, 511, 1}, Load{64, 511, 1},
        Load{256, 511, 1}, Load{1, 2047, 1}, Load{64, 2047, 1}, Load{1, 0, 128},
        Load{1, 0, 512}, Load{4, 0, 512}, Load{1, 0, 2048}, Load{2, 0, 2048}}) {
    ASSIGN_OR_RETURN(const double seconds, TimeStep(device, model, load));
    const int tokens = load.sequences * load.tokens;
    const std::string what =
        load.tokens == 1
            ? absl::StrCat("decode, batch ", load.sequences, ", context ",
                           load.position + 1)
            : absl::StrCat(load.sequences, " prompts of ", load.tokens);
    std::cout << absl::StrFormat("| %s | %.3f | %.0f |\n", what, seconds * 1e3,
                                 tokens / seconds)
              << std::flush;
    report["steps"].push_back(
        {{"what", what}, {"seconds", seconds}, {"tokens", tokens}});
  }
  const std::string json = absl::GetFlag(FLAGS_json);
  if (json.empty()) return absl::OkStatus();
  std::ofstream file(json);
  file << report.dump(2) << "\n";
  if (!file.flush()) {
    return absl::InternalError(absl::StrCat("cannot write ", json));
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace tern

int main(int argc, char** argv) {
  absl::ParseCommandLine(argc, argv);
  const absl::Status status = tern::Run();
  if (!status.ok()) {
    std::cerr << status.message() << "\n";
    return 1;
  }
  return 0;
}
