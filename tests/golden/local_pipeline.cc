#include "tests/golden/local_pipeline.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "kernels/attention.h"
#include "kernels/kernels.h"
#include "util/logging.h"

namespace tern {
namespace testing {
namespace {

constexpr int kBlocks = 160;

}  // namespace

StageWeightsList LoadStages(const std::shared_ptr<const ModelSource>& source,
                            int n_stages, HeadMode head_mode,
                            TernaryPacking packing) {
  const ModelConfig& config = source->config();
  ThreadPool pool(2);
  StageWeightsList stages;
  for (int i = 0; i < n_stages; ++i) {
    StageSpec spec;
    spec.range.layer_begin = config.n_layers * i / n_stages;
    spec.range.layer_end = config.n_layers * (i + 1) / n_stages;
    spec.range.has_embedding = i == 0;
    spec.range.has_head = i == n_stages - 1;
    spec.head_mode = head_mode;
    spec.packing = packing;
    auto weights = LoadStageWeights(
        source, spec, &pool, [](int64_t, int64_t) {}, [] { return false; });
    CHECK(weights.ok()) << weights.status().ToString();
    stages.push_back(std::move(weights).value());
  }
  return stages;
}

LocalPipeline::LocalPipeline(const StageWeightsList& stages, Isa isa,
                             int n_threads)
    : pool_(n_threads) {
  for (const auto& weights : stages) {
    const ModelConfig& c = weights->config;
    Part part;
    auto kv =
        KvCache::Create({static_cast<int>(weights->layers.size()), c.n_kv_heads,
                         c.head_dim, kBlocks, c.context_length});
    CHECK(kv.ok()) << kv.status().ToString();
    part.kv = std::move(kv).value();
    part.stage = std::make_unique<Stage>(weights, part.kv.get(), &pool_,
                                         &KernelsFor(isa), kStepTokensMax);
    parts_.push_back(std::move(part));
  }
  hidden_.resize(size_t{kStepTokensMax} * stages[0]->config.hidden_size);
  // 7 and the number of blocks have no common divisor.
  for (int i = 0; i < kBlocks; ++i) free_blocks_.push_back(i * 7 % kBlocks);
}

void LocalPipeline::Open(int64_t sequence_id) {
  for (const Part& part : parts_) CHECK(part.kv->Open(sequence_id).ok());
}

void LocalPipeline::Release(int64_t sequence_id) {
  const absl::Span<const int32_t> blocks =
      parts_[0].kv->BlockTable(sequence_id);
  free_blocks_.insert(free_blocks_.end(), blocks.begin(), blocks.end());
  for (const Part& part : parts_) CHECK(part.kv->Release(sequence_id).ok());
}

std::vector<std::vector<float>> LocalPipeline::Step(
    const std::vector<Row>& rows) {
  for (const Row& row : rows) {
    const int n_tokens = static_cast<int>(row.tokens.size());
    const size_t n_held = parts_[0].kv->BlockTable(row.sequence_id).size();
    const size_t n_needed =
        (row.position + n_tokens + kKvBlockSize - 1) / kKvBlockSize;
    CHECK(n_needed - n_held <= free_blocks_.size());
    const std::vector<int32_t> blocks(
        free_blocks_.begin(), free_blocks_.begin() + (n_needed - n_held));
    free_blocks_.erase(free_blocks_.begin(),
                       free_blocks_.begin() + (n_needed - n_held));
    for (const Part& part : parts_) {
      const absl::Status status =
          part.kv->Extend(row.sequence_id, blocks, row.position, n_tokens);
      CHECK(status.ok()) << status.ToString();
    }
  }
  for (const Part& part : parts_) {
    std::vector<MicroBatchRow> batch;
    for (const Row& row : rows) {
      batch.push_back({row.tokens, row.position,
                       part.kv->BlockTable(row.sequence_id), row.samples,
                       row.wanted});
    }
    part.stage->Forward(batch, hidden_.data());
  }
  Stage& last = *parts_.back().stage;
  std::vector<std::vector<float>> logits;
  for (int begin = 0; begin < last.logit_row_count();
       begin += Stage::kLogitRows) {
    const int count =
        std::min(Stage::kLogitRows, last.logit_row_count() - begin);
    last.ComputeLogits(begin, count, hidden_.data());
    for (int i = 0; i < count; ++i) {
      logits.emplace_back(last.logits(i).begin(), last.logits(i).end());
    }
  }
  return logits;
}

std::vector<uint16_t> LocalPipeline::KvOf(int64_t sequence_id,
                                          int n_tokens) const {
  std::vector<uint16_t> values;
  for (const Part& part : parts_) {
    const auto blocks = part.kv->BlockTable(sequence_id);
    const KvCache::Shape& shape = part.kv->shape();
    for (int layer = 0; layer < shape.n_layers; ++layer) {
      for (int position = 0; position < n_tokens; ++position) {
        const KvBlockView block =
            part.kv->Block(layer, blocks[position / kKvBlockSize]);
        const int slot = position % kKvBlockSize;
        for (int h = 0; h < shape.n_kv_heads; ++h) {
          for (int d = 0; d < shape.head_dim; ++d) {
            values.push_back(
                block.k[(h * shape.head_dim + d) * kKvBlockSize + slot]);
            values.push_back(
                block.v[(h * kKvBlockSize + slot) * shape.head_dim + d]);
          }
        }
      }
    }
  }
  return values;
}

bool SameBits(const GoldenAnswer& a, const GoldenAnswer& b) {
  if (a.tokens != b.tokens || a.logits.size() != b.logits.size()) return false;
  for (size_t i = 0; i < a.logits.size(); ++i) {
    if (a.logits[i].size() != b.logits[i].size() ||
        std::memcmp(a.logits[i].data(), b.logits[i].data(),
                    a.logits[i].size() * sizeof(float)) != 0) {
      return false;
    }
  }
  return true;
}

std::vector<GoldenAnswer> Generate(LocalPipeline* pipeline,
                                   const std::vector<GoldenRequest>& requests,
                                   int chunk, int batch,
                                   LogitsComputed computed) {
  struct Sequence {
    size_t request;
    std::vector<int32_t> tokens;  // prompt and answer
    int n_done = 0;               // tokens in the KV cache
  };
  std::vector<GoldenAnswer> answers(requests.size());
  std::vector<Sequence> running;
  SamplerScratch scratch;
  size_t next = 0;
  while (next < requests.size() || !running.empty()) {
    if (next < requests.size() && static_cast<int>(running.size()) < batch) {
      pipeline->Open(static_cast<int64_t>(next));
      running.push_back({next, requests[next].prompt});
      ++next;
    }
    std::vector<LocalPipeline::Row> rows;
    for (const Sequence& s : running) {
      const int n_left = static_cast<int>(s.tokens.size()) - s.n_done;
      const int n = std::min(n_left, chunk);
      rows.push_back(
          {static_cast<int64_t>(s.request),
           s.n_done,
           {s.tokens.begin() + s.n_done, s.tokens.begin() + s.n_done + n},
           n == n_left,
           computed == LogitsComputed::kAll
               ? WantedLogits{}
               : LogitsWantedBy(requests[s.request].sampler, s.n_done + n)});
    }
    const std::vector<std::vector<float>> logits = pipeline->Step(rows);
    size_t n_sampled = 0;
    for (size_t i = 0; i < rows.size(); ++i) {
      Sequence& s = running[i];
      s.n_done += static_cast<int>(rows[i].tokens.size());
      if (!rows[i].samples) continue;
      const std::vector<float>& row_logits = logits[n_sampled++];
      const auto token = SampleToken(row_logits, requests[s.request].sampler,
                                     s.n_done, &scratch);
      CHECK(token.ok()) << token.status().ToString();
      answers[s.request].tokens.push_back(*token);
      answers[s.request].logits.push_back(row_logits);
      s.tokens.push_back(*token);
    }
    for (size_t i = running.size(); i-- > 0;) {
      const size_t request = running[i].request;
      if (static_cast<int>(answers[request].tokens.size()) <
          requests[request].n_tokens) {
        continue;
      }
      pipeline->Release(static_cast<int64_t>(request));
      running.erase(running.begin() + i);
    }
  }
  return answers;
}

}  // namespace testing
}  // namespace tern
