#include "bench/mock_stage.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "util/status_macros.h"

namespace tern {
namespace {

// The finaliser of SplitMix64.
uint64_t Mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

}  // namespace

StepWork WorkOf(const StepPlan& plan) {
  StepWork work;
  for (const StepRow& row : plan.rows) {
    const int64_t n = static_cast<int64_t>(row.tokens.size());
    work.n_tokens += n;
    work.n_context += n * row.position + n * (n + 1) / 2;
  }
  return work;
}

absl::Duration StepTime(const CostModel& cost, const StepWork& work,
                        double share) {
  if (work.n_tokens == 0) return absl::ZeroDuration();
  return share * (cost.per_step + work.n_tokens * cost.per_token +
                  work.n_context * cost.per_context);
}

absl::StatusOr<std::unique_ptr<MockStage>> MockStage::Create(
    const Options& options, const StepLimits& limits) {
  ASSIGN_OR_RETURN(
      std::unique_ptr<KvCache> kv,
      KvCache::Create({/*n_layers=*/1, /*n_kv_heads=*/1, /*head_dim=*/1,
                       limits.kv_block_count, limits.context_length}));
  return std::unique_ptr<MockStage>(
      new MockStage(options, limits, std::move(kv)));
}

MockStage::MockStage(const Options& options, const StepLimits& limits,
                     std::unique_ptr<KvCache> kv)
    : options_(options), limits_(limits), kv_(std::move(kv)) {}

absl::StatusOr<MockStage::Outcome> MockStage::Run(const StepPlan& plan) {
  if (plan.step_id != last_step_id_ + 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("step ", plan.step_id, " follows step ", last_step_id_,
                     "; step ids grow by one, from 1, in each epoch"));
  }
  last_step_id_ = plan.step_id;
  const absl::Status updated = UpdateSequences(plan);
  if (!updated.ok()) {
    return absl::Status(updated.code(), absl::StrCat("step ", plan.step_id,
                                                     ": ", updated.message()));
  }
  const StepWork work = WorkOf(plan);
  Outcome outcome{{}, work.n_tokens};
  outcome.result.step_id = plan.step_id;
  outcome.result.compute_ns =
      absl::ToInt64Nanoseconds(StepTime(options_.cost, work, options_.share));
  outcome.result.wait_ns = 0;
  outcome.result.blocks_in_use = kv_->blocks_in_use();
  if (!limits_.is_last_stage) return outcome;
  for (const StepRow& row : plan.rows) {
    if (!row.scored_tokens.empty()) {
      outcome.result.scored.push_back(Score(row));
    }
    if (!row.samples) continue;
    const int32_t end = row.position + static_cast<int32_t>(row.tokens.size());
    for (int32_t position = end - row.draft_count; position <= end;
         ++position) {
      outcome.result.sampled.push_back(Sample(row.sequence_id, position));
      if (position < end && outcome.result.sampled.back().token_id !=
                                row.tokens[position - row.position]) {
        break;
      }
    }
  }
  return outcome;
}

absl::Status MockStage::UpdateSequences(const StepPlan& plan) {
  for (const int64_t id : plan.released_sequence_ids) {
    RETURN_IF_ERROR(kv_->Release(id));
    samplers_.erase(id);
  }
  for (const SequenceSetup& setup : plan.new_sequences) {
    RETURN_IF_ERROR(kv_->Open(setup.sequence_id));
    if (limits_.is_last_stage) samplers_[setup.sequence_id] = setup.sampler;
  }
  for (const StepRow& row : plan.rows) {
    const absl::Span<const int32_t> blocks = row.new_block_ids;
    if (row.taken_over_block_count > 0) {
      RETURN_IF_ERROR(kv_->TakeOver(row.sequence_id,
                                    blocks.first(row.taken_over_block_count)));
    }
    RETURN_IF_ERROR(
        kv_->Extend(row.sequence_id, blocks.subspan(row.taken_over_block_count),
                    row.position, static_cast<int32_t>(row.tokens.size()),
                    row.draft_count));
  }
  return absl::OkStatus();
}

SampledToken MockStage::Sample(int64_t sequence_id, int32_t position) const {
  const SamplerParams& sampler = samplers_.at(sequence_id);
  const std::vector<int32_t>& stops = sampler.stop_token_ids;
  const auto is_stop = [&stops](int32_t id) {
    return std::find(stops.begin(), stops.end(), id) != stops.end();
  };
  const uint32_t vocab_size = limits_.vocab_size;
  int32_t token = static_cast<int32_t>(
      Mix(Mix(sampler.seed ^ Mix(sampler.sample_index)) ^ position) %
      vocab_size);
  const int n_output = position - sampler.prompt_token_count + 1;
  if (options_.answer_tokens > 0 && n_output >= options_.answer_tokens &&
      !stops.empty()) {
    token = stops.front();
  } else {
    // A vocabulary of stop tokens alone has nothing else to offer.
    for (uint32_t i = 0; i < vocab_size && is_stop(token); ++i) {
      token = token + 1 < limits_.vocab_size ? token + 1 : 0;
    }
  }
  SampledToken sampled{sequence_id, position, token, absl::OkStatus()};
  if (sampler.logprobs >= 0) sampled.logprobs = Logprobs(sampler.logprobs);
  return sampled;
}

ScoredRow MockStage::Score(const StepRow& row) const {
  const int32_t n_scored = static_cast<int32_t>(row.scored_tokens.size());
  const int32_t end = row.position + static_cast<int32_t>(row.tokens.size()) +
                      (row.samples ? 0 : 1);
  const SamplerParams& sampler = samplers_.at(row.sequence_id);
  return {
      row.sequence_id, end - n_scored,
      std::vector<TokenLogprobs>(n_scored, Logprobs(sampler.prompt_logprobs)),
      absl::OkStatus()};
}

// Whatever the token, it was certain, and so were all others.
TokenLogprobs MockStage::Logprobs(int n_alternatives) const {
  TokenLogprobs logprobs;
  for (int i = 0; i < std::min(n_alternatives, limits_.vocab_size); ++i) {
    logprobs.alternatives.push_back({i, 0});
  }
  return logprobs;
}

}  // namespace tern
