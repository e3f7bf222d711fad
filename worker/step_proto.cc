#include "worker/step_proto.h"

#include <cmath>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/attention.h"
#include "util/message_checksum.h"
#include "util/status_macros.h"

namespace tern {
namespace {

absl::Status CheckAddress(const v1::StepPlan& plan, const StepLimits& limits) {
  if (plan.epoch() > limits.epoch) {
    return absl::AbortedError(
        absl::StrCat("step ", plan.step_id(), " belongs to epoch ",
                     plan.epoch(), "; this worker is at ", limits.epoch));
  }
  if (plan.model() != limits.model ||
      plan.pipeline_id() != limits.pipeline_id) {
    return absl::FailedPreconditionError(absl::StrCat(
        "step ", plan.step_id(), " is for model \"", plan.model(),
        "\", pipeline \"", plan.pipeline_id(), "\"; this worker serves \"",
        limits.model, "\" in \"", limits.pipeline_id, "\""));
  }
  if (plan.numerics_id() != limits.numerics_id) {
    return absl::FailedPreconditionError(absl::StrCat(
        "step ", plan.step_id(), " is meant for \"", plan.numerics_id(),
        "\"; this stage was loaded for \"", limits.numerics_id, "\""));
  }
  return absl::OkStatus();
}

absl::Status CheckTokenIds(const v1::SequenceSetup& setup,
                           const StepLimits& limits) {
  const v1::SamplerSetup& s = setup.sampler();
  const auto check = [&](absl::string_view field, int32_t id) -> absl::Status {
    if (id >= 0 && id < limits.vocab_size) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat(
        "sequence ", setup.sequence_id(), " has token ", id, " in its ", field,
        "; the vocabulary has ", limits.vocab_size));
  };
  for (const int32_t id : s.stop_token_ids()) {
    RETURN_IF_ERROR(check("stop_token_ids", id));
  }
  for (const auto& [id, bias] : s.logit_bias()) {
    RETURN_IF_ERROR(check("logit_bias", id));
    if (!(bias >= -100 && bias <= 100)) {
      return absl::InvalidArgumentError(absl::StrCat(
          "sequence ", setup.sequence_id(), " has a logit_bias of ", bias,
          " for token ", id, ", outside [-100, 100]"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<SamplerParams> ParseSampler(const v1::SequenceSetup& setup,
                                           const StepLimits& limits) {
  const v1::SamplerSetup& s = setup.sampler();
  // Comparisons are written so that NaN fails them.
  const char* wrong = nullptr;
  // Coordinators that do not know it leave it out.
  const float repetition =
      s.repetition_penalty() == 0 ? 1 : s.repetition_penalty();
  if (!(s.temperature() >= 0 && s.temperature() <= 100)) {
    wrong = "a temperature outside [0, 100]";
  } else if (s.top_k() < 0) {
    wrong = "a negative top_k";
  } else if (!(s.top_p() > 0 && s.top_p() <= 1)) {
    wrong = "a top_p outside (0, 1]";
  } else if (!(s.min_p() >= 0 && s.min_p() <= 1)) {
    wrong = "a min_p outside [0, 1]";
  } else if (s.sample_index() < 0) {
    wrong = "a negative sample_index";
  } else if (!(repetition > 0 && repetition <= 10)) {
    wrong = "a repetition_penalty outside (0, 10]";
  } else if (!(s.frequency_penalty() >= -2 && s.frequency_penalty() <= 2)) {
    wrong = "a frequency_penalty outside [-2, 2]";
  } else if (!(s.presence_penalty() >= -2 && s.presence_penalty() <= 2)) {
    wrong = "a presence_penalty outside [-2, 2]";
  } else if (s.logit_bias().size() > kLogitBiasesMax) {
    wrong = "a logit_bias for more than 1024 tokens";
  } else if (s.min_output_tokens() < 0) {
    wrong = "a negative min_output_tokens";
  } else if (s.has_logprobs() && (s.logprobs() < 0 || s.logprobs() > 20)) {
    wrong = "logprobs outside [0, 20]";
  } else if (s.prompt_logprobs() < 0 || s.prompt_logprobs() > 20) {
    wrong = "prompt_logprobs outside [0, 20]";
  } else if (setup.prompt_token_count() < 0 ||
             setup.prompt_token_count() > limits.context_length) {
    wrong = "a prompt_token_count outside of the context";
  }
  if (wrong != nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("sequence ", setup.sequence_id(), " has ", wrong));
  }
  RETURN_IF_ERROR(CheckTokenIds(setup, limits));
  SamplerParams out;
  out.temperature = s.temperature();
  out.top_k = s.top_k();
  out.top_p = s.top_p();
  out.min_p = s.min_p();
  out.seed = s.seed();
  out.sample_index = s.sample_index();
  out.repetition_penalty = repetition;
  out.frequency_penalty = s.frequency_penalty();
  out.presence_penalty = s.presence_penalty();
  for (const auto& [id, bias] : s.logit_bias()) {
    out.logit_bias.push_back({id, bias});
  }
  out.min_output_tokens = s.min_output_tokens();
  out.stop_token_ids.assign(s.stop_token_ids().begin(),
                            s.stop_token_ids().end());
  out.prompt_token_count = setup.prompt_token_count();
  out.logprobs = s.has_logprobs() ? s.logprobs() : -1;
  out.prompt_logprobs = s.prompt_logprobs();
  return out;
}

// That the row fills blocks which only some stages have lost.
absl::Status CheckComputingStages(const v1::StepRow& row,
                                  const StepLimits& limits) {
  const int32_t begin = row.computing_stages().begin();
  const int32_t end = row.computing_stages().end();
  if (begin < 0 || begin >= end || end > limits.stage_count) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the row of sequence ", row.sequence_id(), " is for stages [", begin,
        ", ", end, "); the pipeline has ", limits.stage_count));
  }
  const int64_t n_filled_tokens =
      (int64_t{row.new_block_ids_size()} - row.taken_over_block_count()) *
      kKvBlockSize;
  if (row.position() % kKvBlockSize != 0 ||
      row.tokens().ids_size() != n_filled_tokens || row.samples() ||
      row.scored_token_ids_size() > 0 || row.draft_count() > 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the row of sequence ", row.sequence_id(), " is for stages [", begin,
        ", ", end, ") alone, and is not one that fills its ",
        row.new_block_ids_size() - row.taken_over_block_count(),
        " new KV blocks and does nothing else"));
  }
  return absl::OkStatus();
}

absl::StatusOr<StepRow> ParseRow(const v1::StepRow& row,
                                 const StepLimits& limits) {
  const int64_t id = row.sequence_id();
  const int64_t sampled_in_step_id = row.sampled_in_step_id();
  if (row.token_source_case() == v1::StepRow::kSampledInStepId &&
      sampled_in_step_id < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("the row of sequence ", id, " takes its token from step ",
                     sampled_in_step_id));
  }
  std::vector<int32_t> tokens(row.tokens().ids().begin(),
                              row.tokens().ids().end());
  if (sampled_in_step_id > 0) tokens.assign(1, 0);
  if (tokens.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("the row of sequence ", id, " has no tokens"));
  }
  const int64_t n_tokens = static_cast<int64_t>(tokens.size());
  if (n_tokens > limits.max_step_tokens) {
    return absl::InvalidArgumentError(
        absl::StrCat("the row of sequence ", id, " has ", tokens.size(),
                     " tokens; this stage was loaded for ",
                     limits.max_step_tokens, " a step"));
  }
  // Written without a sum, which could overflow.
  if (row.position() < 0 || row.position() > limits.context_length - n_tokens) {
    return absl::InvalidArgumentError(
        absl::StrCat("the row of sequence ", id, " has ", tokens.size(),
                     " tokens from position ", row.position(),
                     "; the context holds ", limits.context_length));
  }
  const auto check_token = [&](int32_t token) -> absl::Status {
    if (token >= 0 && token < limits.vocab_size) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrCat("the row of sequence ", id, " has token ", token,
                     "; the vocabulary has ", limits.vocab_size));
  };
  for (const int32_t token : tokens) RETURN_IF_ERROR(check_token(token));
  for (const int32_t block : row.new_block_ids()) {
    if (block < 0 || block >= limits.kv_block_count) {
      return absl::InvalidArgumentError(
          absl::StrCat("the row of sequence ", id, " names KV block ", block,
                       "; the pool has ", limits.kv_block_count));
    }
  }
  const int32_t n_taken_over = row.taken_over_block_count();
  if (n_taken_over < 0 || n_taken_over > row.new_block_ids_size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("the row of sequence ", id, " takes over ", n_taken_over,
                     " KV blocks and names ", row.new_block_ids_size()));
  }
  const auto& taken_over = row.taken_over_token_ids();
  if (!taken_over.empty() &&
      taken_over.size() != int64_t{n_taken_over} * kKvBlockSize) {
    return absl::InvalidArgumentError(
        absl::StrCat("the row of sequence ", id, " tells ", taken_over.size(),
                     " tokens of the ", n_taken_over, " KV blocks of ",
                     kKvBlockSize, " that it takes over"));
  }
  for (const int32_t token : taken_over) RETURN_IF_ERROR(check_token(token));
  const int32_t n_drafts = row.draft_count();
  if (n_drafts < 0 || n_drafts >= n_tokens ||
      (n_drafts > 0 && !row.samples())) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the row of sequence ", id, " has ", n_drafts, " guesses among ",
        n_tokens, " tokens", row.samples() ? "" : " and samples nothing"));
  }
  const auto& scored = row.scored_token_ids();
  if (scored.size() > n_tokens - (row.samples() ? 1 : 0) ||
      (!scored.empty() && n_drafts > 0)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the row of sequence ", id, " wants the log-probabilities of ",
        scored.size(), " tokens; it has ", n_tokens, " tokens, of which ",
        n_drafts, " are guesses", row.samples() ? ", and samples" : ""));
  }
  for (const int32_t token : scored) RETURN_IF_ERROR(check_token(token));
  if (row.has_computing_stages()) {
    RETURN_IF_ERROR(CheckComputingStages(row, limits));
  }
  return StepRow{id,
                 row.position(),
                 std::move(tokens),
                 {row.new_block_ids().begin(), row.new_block_ids().end()},
                 row.samples(),
                 n_taken_over,
                 {taken_over.begin(), taken_over.end()},
                 sampled_in_step_id,
                 n_drafts,
                 {scored.begin(), scored.end()},
                 row.computing_stages().begin(),
                 row.computing_stages().end()};
}

// to: a SampledToken or a ScoredToken.
template <typename Token>
void SetLogprobs(const TokenLogprobs& from, Token* to) {
  to->set_logprob(from.logprob);
  for (const TokenLogprob& other : from.alternatives) {
    v1::SampledAlternative* alternative = to->add_alternatives();
    alternative->set_token_id(other.token_id);
    alternative->set_logprob(other.logprob);
  }
}

}  // namespace

absl::StatusOr<StepPlan> ParseStepPlan(const v1::StepPlan& plan,
                                       const StepLimits& limits) {
  RETURN_IF_ERROR(CheckAddress(plan, limits));
  if (plan.step_id() < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("step id ", plan.step_id(), " is below 1"));
  }
  if (plan.repeat_max() < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("step ", plan.step_id(), " has repeat_max ",
                     plan.repeat_max(), ", which is negative"));
  }
  if (plan.repeat_max() > 1) {
    return absl::UnimplementedError(
        absl::StrCat("step ", plan.step_id(), " grants ", plan.repeat_max(),
                     " decode steps; this worker takes 1 (repeat_max_limit)"));
  }
  if (plan.released_sequence_ids_size() > kStepSequencesMax ||
      plan.new_sequences_size() > kStepSequencesMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("step ", plan.step_id(), " releases ",
                     plan.released_sequence_ids_size(), " and opens ",
                     plan.new_sequences_size(),
                     " sequences; the most of each is ", kStepSequencesMax));
  }
  StepPlan parsed;
  parsed.step_id = plan.step_id();
  parsed.released_sequence_ids.assign(plan.released_sequence_ids().begin(),
                                      plan.released_sequence_ids().end());
  parsed.new_sequences.reserve(plan.new_sequences_size());
  for (const v1::SequenceSetup& setup : plan.new_sequences()) {
    SequenceSetup& out = parsed.new_sequences.emplace_back(
        SequenceSetup{setup.sequence_id(), {}});
    if (!limits.is_last_stage) continue;
    ASSIGN_OR_RETURN(out.sampler, ParseSampler(setup, limits));
  }
  int64_t n_tokens = 0;
  absl::flat_hash_set<int64_t> sequence_ids;
  for (const v1::StepRow& row : plan.rows()) {
    ASSIGN_OR_RETURN(StepRow out, ParseRow(row, limits));
    if (!sequence_ids.insert(out.sequence_id).second) {
      return absl::InvalidArgumentError(
          absl::StrCat("step ", plan.step_id(), " has two rows of sequence ",
                       out.sequence_id));
    }
    n_tokens += static_cast<int64_t>(out.tokens.size());
    if (n_tokens > limits.max_step_tokens) {
      return absl::InvalidArgumentError(absl::StrCat(
          "step ", plan.step_id(), " has more than the ",
          limits.max_step_tokens, " tokens that this stage was loaded for"));
    }
    parsed.rows.push_back(std::move(out));
  }
  return parsed;
}

v1::StepResult MakeStepResult(const StepResult& result,
                              const StepLimits& limits) {
  v1::StepResult message;
  message.set_model(limits.model);
  message.set_pipeline_id(limits.pipeline_id);
  message.set_epoch(limits.epoch);
  message.set_step_id(result.step_id);
  for (const SampledToken& token : result.sampled) {
    v1::SampledToken* out = message.add_sampled();
    out->set_sequence_id(token.sequence_id);
    out->set_position(token.position);
    out->set_token_id(token.token_id);
    if (token.logprobs.has_value()) SetLogprobs(*token.logprobs, out);
    if (token.status.ok()) continue;
    out->set_error_code(static_cast<int32_t>(token.status.code()));
    out->set_error_message(std::string(token.status.message()));
  }
  for (const ScoredRow& row : result.scored) {
    v1::ScoredRow* out = message.add_scored();
    out->set_sequence_id(row.sequence_id);
    out->set_position(row.position);
    for (const TokenLogprobs& token : row.tokens) {
      SetLogprobs(token, out->add_tokens());
    }
    if (row.status.ok()) continue;
    out->set_error_code(static_cast<int32_t>(row.status.code()));
    out->set_error_message(std::string(row.status.message()));
  }
  message.set_compute_ns(result.compute_ns);
  message.set_wait_ns(result.wait_ns);
  message.set_kv_block_in_use_count(result.blocks_in_use);
  SetChecksum(&message);
  return message;
}

}  // namespace tern
