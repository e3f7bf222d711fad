#include "tests/parity/whole_model.h"

#include <utility>

#include "kernels/attention.h"
#include "kernels/kernels.h"
#include "model/model_source.h"
#include "util/logging.h"
#include "util/status_macros.h"
#include "worker/stage_weights.h"

namespace tern {
namespace {
constexpr int64_t kSequence = 1;
}  // namespace

absl::StatusOr<std::unique_ptr<WholeModel>> WholeModel::Load(
    const std::string& path, HeadMode head_mode, Isa isa, int n_threads) {
  std::unique_ptr<WholeModel> model(new WholeModel(n_threads));
  ASSIGN_OR_RETURN(std::shared_ptr<const ModelSource> source,
                   ModelSource::Open(path));
  model->config_ = source->config();
  const ModelConfig& config = model->config_;
  const StageSpec spec = {{0, config.n_layers, true, true}, head_mode};
  ASSIGN_OR_RETURN(auto weights,
                   LoadStageWeights(
                       std::move(source), spec, &model->pool_,
                       [](int64_t, int64_t) {}, [] { return false; }));
  const int n_blocks =
      (config.context_length + kKvBlockSize - 1) / kKvBlockSize;
  ASSIGN_OR_RETURN(
      model->kv_,
      KvCache::Create({config.n_layers, config.n_kv_heads, config.head_dim,
                       n_blocks, config.context_length}));
  model->stage_ = std::make_unique<Stage>(std::move(weights), model->kv_.get(),
                                          &model->pool_, &KernelsFor(isa),
                                          config.context_length);
  model->Reset();
  return model;
}

void WholeModel::Reset() {
  kv_->Clear();
  CHECK(kv_->Open(kSequence).ok());
  n_tokens_ = 0;
}

std::vector<float> WholeModel::Append(absl::Span<const int32_t> tokens) {
  const int n = static_cast<int>(tokens.size());
  std::vector<int32_t> new_blocks;
  for (int block = (n_tokens_ + kKvBlockSize - 1) / kKvBlockSize;
       block * kKvBlockSize < n_tokens_ + n; ++block) {
    new_blocks.push_back(block);
  }
  const absl::Status status = kv_->Extend(kSequence, new_blocks, n_tokens_, n);
  CHECK(status.ok()) << status;
  const MicroBatchRow row = {tokens, n_tokens_, kv_->BlockTable(kSequence),
                             true};
  stage_->Forward({row}, stage_->hidden());
  stage_->ComputeLogits(0, 1, stage_->hidden());
  n_tokens_ += n;
  const absl::Span<const float> logits = stage_->logits(0);
  return std::vector<float>(logits.begin(), logits.end());
}

}  // namespace tern
