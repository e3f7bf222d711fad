#include "coordinator/step_proto.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "util/message_checksum.h"
#include "util/status_macros.h"

namespace tern {
namespace {

absl::Status CheckToken(const v1::StepResult& result, int32_t token_id,
                        const Pipeline::Spec& spec) {
  if (token_id >= 0 && token_id < spec.vocab_size) return absl::OkStatus();
  return absl::InternalError(absl::StrCat("step ", result.step_id(),
                                          " came back with token ", token_id,
                                          "; the model has ", spec.vocab_size));
}

// from: a SampledToken or a ScoredToken.
template <typename Token>
absl::StatusOr<TokenLogprobs> LogprobsOf(const Token& from,
                                         const v1::StepResult& result,
                                         const Pipeline::Spec& spec) {
  TokenLogprobs logprobs;
  logprobs.logprob = from.logprob();
  for (const v1::SampledAlternative& other : from.alternatives()) {
    RETURN_IF_ERROR(CheckToken(result, other.token_id(), spec));
    logprobs.alternatives.emplace_back(other.token_id(), other.logprob());
  }
  return logprobs;
}

}  // namespace

v1::StepPlan ToProto(const StepPlan& plan, const Pipeline::Spec& spec) {
  v1::StepPlan out;
  out.set_model(spec.model);
  out.set_pipeline_id(spec.pipeline_id);
  out.set_epoch(spec.epoch);
  out.set_step_id(plan.step_id);
  out.set_numerics_id(spec.numerics_id);
  out.set_repeat_max(1);
  out.mutable_released_sequence_ids()->Add(plan.released_run_ids.begin(),
                                           plan.released_run_ids.end());
  for (const SequenceSetup& setup : plan.new_sequences) {
    v1::SequenceSetup* to = out.add_new_sequences();
    to->set_sequence_id(setup.run_id);
    to->set_prompt_token_count(setup.prompt_token_count);
    v1::SamplerSetup* sampler = to->mutable_sampler();
    sampler->set_temperature(setup.sampler.temperature);
    sampler->set_top_k(setup.sampler.top_k);
    sampler->set_top_p(setup.sampler.top_p);
    sampler->set_min_p(setup.sampler.min_p);
    sampler->set_seed(setup.sampler.seed);
    sampler->set_sample_index(setup.sampler.sample_index);
    sampler->mutable_stop_token_ids()->Add(setup.stop_token_ids.begin(),
                                           setup.stop_token_ids.end());
    sampler->set_repetition_penalty(setup.sampler.repetition_penalty);
    sampler->set_frequency_penalty(setup.sampler.frequency_penalty);
    sampler->set_presence_penalty(setup.sampler.presence_penalty);
    for (const auto& [id, bias] : setup.sampler.logit_bias) {
      (*sampler->mutable_logit_bias())[id] = bias;
    }
    sampler->set_min_output_tokens(setup.min_output_tokens);
    if (setup.sampler.logprobs >= 0) {
      sampler->set_logprobs(setup.sampler.logprobs);
    }
    if (setup.sampler.prompt_logprobs > 0) {
      sampler->set_prompt_logprobs(setup.sampler.prompt_logprobs);
    }
  }
  for (const StepRow& row : plan.rows) {
    v1::StepRow* to = out.add_rows();
    to->set_sequence_id(row.run_id);
    to->set_position(row.position);
    if (row.sampled_in_step_id > 0) {
      to->set_sampled_in_step_id(row.sampled_in_step_id);
    } else {
      to->mutable_tokens()->mutable_ids()->Add(row.tokens.begin(),
                                               row.tokens.end());
    }
    to->mutable_new_block_ids()->Add(row.new_block_ids.begin(),
                                     row.new_block_ids.end());
    to->set_samples(row.samples);
    to->set_draft_count(row.n_drafts);
    to->set_taken_over_block_count(row.n_taken_over_blocks);
    to->mutable_taken_over_token_ids()->Add(row.taken_over_tokens.begin(),
                                            row.taken_over_tokens.end());
    to->mutable_scored_token_ids()->Add(row.scored_tokens.begin(),
                                        row.scored_tokens.end());
    if (!row.computing_stages.empty()) {
      to->mutable_computing_stages()->set_begin(row.computing_stages.begin);
      to->mutable_computing_stages()->set_end(row.computing_stages.end);
    }
  }
  SetChecksum(&out);
  return out;
}

absl::StatusOr<StepResult> FromProto(const v1::StepResult& result,
                                     const Pipeline::Spec& spec) {
  if (result.model() != spec.model ||
      result.pipeline_id() != spec.pipeline_id ||
      result.epoch() != spec.epoch) {
    return absl::InternalError(
        absl::StrCat("a result of pipeline ", result.pipeline_id(), " epoch ",
                     result.epoch(), " came to pipeline ", spec.pipeline_id,
                     " epoch ", spec.epoch));
  }
  StepResult out;
  out.step_id = result.step_id();
  out.busy = absl::Nanoseconds(std::max<int64_t>(0, result.compute_ns()));
  for (const v1::SampledToken& from : result.sampled()) {
    SampledToken sampled;
    sampled.run_id = from.sequence_id();
    sampled.position = from.position();
    sampled.token_id = from.token_id();
    if (from.error_code() != 0) {
      sampled.status =
          absl::Status(static_cast<absl::StatusCode>(from.error_code()),
                       from.error_message());
    } else {
      RETURN_IF_ERROR(CheckToken(result, from.token_id(), spec));
    }
    if (from.has_logprob()) {
      ASSIGN_OR_RETURN(sampled.logprobs, LogprobsOf(from, result, spec));
    }
    out.sampled.push_back(std::move(sampled));
  }
  for (const v1::ScoredRow& from : result.scored()) {
    ScoredRow scored;
    scored.run_id = from.sequence_id();
    scored.position = from.position();
    if (from.error_code() != 0) {
      scored.status =
          absl::Status(static_cast<absl::StatusCode>(from.error_code()),
                       from.error_message());
    }
    for (const v1::ScoredToken& token : from.tokens()) {
      ASSIGN_OR_RETURN(scored.tokens.emplace_back(),
                       LogprobsOf(token, result, spec));
    }
    out.scored.push_back(std::move(scored));
  }
  return out;
}

v1::LoadStageRequest LoadRequestOf(const Pipeline::Spec& spec, int stage) {
  const std::vector<PlacedStage>& stages = spec.placement.stages;
  const PlacedStage& placed = stages[stage];
  v1::LoadStageRequest request;
  request.set_model(spec.model);
  request.set_pipeline_id(spec.pipeline_id);
  request.set_epoch(spec.epoch);
  request.set_model_fingerprint(spec.model_fingerprint);
  request.set_layer_begin(placed.range.layer_begin);
  request.set_layer_end(placed.range.layer_end);
  request.set_stage_index(stage);
  request.set_stage_count(static_cast<int>(stages.size()));
  request.set_numerics_id(spec.numerics_id);
  request.set_kv_block_count(spec.placement.kv_block_count);
  request.set_max_step_tokens(spec.max_step_tokens);
  if (stage + 1 < static_cast<int>(stages.size())) {
    request.set_next_stage_address(stages[stage + 1].address);
  } else if (stage > 0 && spec.looks_ahead) {
    request.set_first_stage_address(stages[0].address);
  }
  if (!spec.kept_epochs.empty()) {
    request.set_kept_epoch(spec.kept_epochs[stage]);
  }
  request.set_keeps_boundary(spec.placement.keeps_boundary &&
                             stage + 1 < static_cast<int>(stages.size()));
  request.set_content_id(spec.content_id);
  for (const std::string& address : spec.weight_peers) {
    if (address != placed.address) request.add_weight_peer_addresses(address);
  }
  SetChecksum(&request);
  return request;
}

}  // namespace tern
