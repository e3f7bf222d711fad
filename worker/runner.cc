#include "worker/runner.h"

#include <algorithm>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/types/optional.h"
#include "util/logging.h"
#include "util/status_macros.h"

namespace tern {

Runner::Runner(const Options& options, Stage* stage, KvCache* kv,
               ThreadPool* pool, std::shared_ptr<StepMailbox> mailbox,
               StageLinks links, Clock* clock,
               std::atomic<int64_t>* finished_steps)
    : options_(options),
      stage_(stage),
      kv_(kv),
      pool_(pool),
      mailbox_(std::move(mailbox)),
      links_(std::move(links)),
      clock_(clock),
      finished_steps_(finished_steps),
      ring_(links_.in.tokens, links_.out.first),
      scratch_(pool->size()) {
  thread_ = std::thread([this] { Main(); });
}

Runner::~Runner() { thread_.join(); }

void Runner::Main() {
  const absl::Status status = RunAll();
  kv_->Clear();
  if (status.ok()) {
    mailbox_->Close(absl::CancelledError("the stream of plans has ended"));
    links_.Finish();
  } else {
    // Ends the streams with the neighbours, so that they learn of it at once.
    mailbox_->Abort(status);
  }
  const std::shared_ptr<StepSink> sink = mailbox_->TakeSink();
  if (sink != nullptr) sink->OnEnd(status);
}

absl::Status Runner::RunAll() {
  while (true) {
    ASSIGN_OR_RETURN(absl::optional<StepPlan> plan, mailbox_->Next());
    if (!plan.has_value()) return absl::OkStatus();
    StepResult result{};
    RETURN_IF_ERROR(Run(&*plan, &result));
    finished_steps_->fetch_add(1, std::memory_order_relaxed);
    mailbox_->sink()->OnResult(std::move(result));
  }
}

absl::Status Runner::Run(StepPlan* plan, StepResult* result) {
  if (plan->step_id != last_step_id_ + 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("step ", plan->step_id, " follows step ", last_step_id_,
                     "; step ids grow by one, from 1, in each epoch"));
  }
  last_step_id_ = plan->step_id;
  result->step_id = plan->step_id;
  const absl::Time begin = clock_->Now();
  RETURN_IF_ERROR(ring_.Resolve(plan, options_.hidden_states_timeout));
  result->wait_ns = absl::ToInt64Nanoseconds(clock_->Now() - begin);
  const absl::Status status = UpdateSequences(*plan);
  if (!status.ok()) {
    return absl::Status(status.code(), absl::StrCat("step ", plan->step_id,
                                                    ": ", status.message()));
  }
  if (!plan->rows.empty()) RETURN_IF_ERROR(Forward(*plan, result));
  result->blocks_in_use = kv_->blocks_in_use();
  return absl::OkStatus();
}

absl::Status Runner::UpdateSequences(const StepPlan& plan) {
  for (const int64_t id : plan.released_sequence_ids) {
    RETURN_IF_ERROR(kv_->Release(id));
    sequences_.erase(id);
  }
  for (const SequenceSetup& setup : plan.new_sequences) {
    RETURN_IF_ERROR(kv_->Open(setup.sequence_id));
    sequences_[setup.sequence_id] = {setup.sampler, {}};
  }
  for (const StepRow& row : plan.rows) {
    const absl::Span<const int32_t> blocks = row.new_block_ids;
    if (row.taken_over_block_count > 0) {
      RETURN_IF_ERROR(kv_->TakeOver(row.sequence_id,
                                    blocks.first(row.taken_over_block_count)));
    }
    RETURN_IF_ERROR(
        kv_->Extend(row.sequence_id, blocks.subspan(row.taken_over_block_count),
                    row.position, static_cast<int32_t>(row.tokens.size())));
    if (links_.is_last_stage()) RETURN_IF_ERROR(RecordTokens(row));
  }
  return absl::OkStatus();
}

// Rows of a sequence follow each other without gaps, so that each token is
// counted once; what was sampled last comes back with the next row.
absl::Status Runner::RecordTokens(const StepRow& row) {
  SequenceState& sequence = sequences_.find(row.sequence_id)->second;
  if (!sequence.sampler.NeedsHistory()) return absl::OkStatus();
  if (row.taken_over_block_count > 0 && row.taken_over_tokens.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the row of sequence ", row.sequence_id,
        " does not tell the tokens in the KV blocks that it takes over, which "
        "its penalties need"));
  }
  int32_t position =
      row.position - static_cast<int32_t>(row.taken_over_tokens.size());
  const auto record = [&](int32_t token) {
    if (position++ < sequence.sampler.prompt_token_count) {
      sequence.history.AddPrompt(token);
    } else {
      sequence.history.AddOutput(token);
    }
  };
  for (const int32_t token : row.taken_over_tokens) record(token);
  for (const int32_t token : row.tokens) record(token);
  return absl::OkStatus();
}

absl::Status Runner::Forward(const StepPlan& plan, StepResult* result) {
  rows_.clear();
  int n_tokens = 0;
  for (const StepRow& row : plan.rows) {
    const int32_t n = static_cast<int32_t>(row.tokens.size());
    rows_.push_back(
        {row.tokens, row.position, kv_->BlockTable(row.sequence_id),
         row.samples,
         LogitsWantedBy(sequences_.find(row.sequence_id)->second.sampler,
                        row.position + n)});
    n_tokens += n;
  }

  const absl::Time begin = clock_->Now();
  float* hidden = stage_->hidden();
  if (links_.in.hidden != nullptr) {
    RETURN_IF_ERROR(links_.in.hidden->Take(
        plan.step_id, n_tokens, options_.hidden_states_timeout, &received_));
    hidden = received_.data();
  }
  const absl::Time computing = clock_->Now();
  {
    const ThreadPool::CallerBinding binding(*pool_);
    stage_->Forward(rows_, hidden);
    if (links_.is_last_stage()) Sample(plan, hidden, result);
  }
  const absl::Time computed = clock_->Now();
  absl::Duration waited = computing - begin;
  if (links_.is_last_stage()) {
    RETURN_IF_ERROR(ring_.Send(plan.step_id, result->sampled));
  } else {
    RETURN_IF_ERROR(links_.out.next->Send(
        plan.step_id, {hidden, static_cast<size_t>(n_tokens) *
                                   stage_->weights().config.hidden_size}));
  }
  waited += clock_->Now() - computed;
  result->compute_ns = absl::ToInt64Nanoseconds(computed - computing);
  result->wait_ns += absl::ToInt64Nanoseconds(waited);
  return absl::OkStatus();
}

void Runner::Sample(const StepPlan& plan, const float* hidden,
                    StepResult* result) {
  for (const StepRow& row : plan.rows) {
    if (!row.samples) continue;
    const int32_t position =
        row.position + static_cast<int32_t>(row.tokens.size());
    result->sampled.push_back(
        {row.sequence_id, position, -1, absl::OkStatus()});
  }
  const int n_rows = static_cast<int>(result->sampled.size());
  for (int begin = 0; begin < n_rows; begin += Stage::kLogitRows) {
    const int count = std::min(Stage::kLogitRows, n_rows - begin);
    stage_->ComputeLogits(begin, count, hidden);
    pool_->ParallelForEach(count, [&](int64_t i, int thread) {
      SampleRow(stage_->logits(static_cast<int>(i)), &scratch_[thread],
                &result->sampled[begin + i]);
    });
  }
}

void Runner::SampleRow(absl::Span<const float> logits, SamplerScratch* scratch,
                       SampledToken* token) const {
  const SequenceState& sequence = sequences_.find(token->sequence_id)->second;
  const absl::StatusOr<int32_t> id = SampleToken(
      logits, sequence.sampler, token->position, scratch, &sequence.history);
  if (!id.ok()) {
    token->status = id.status();
    return;
  }
  token->token_id = *id;
  if (sequence.sampler.logprobs >= 0) {
    token->logprobs =
        ComputeLogprobs(logits, *id, sequence.sampler.logprobs, scratch);
  }
}

}  // namespace tern
