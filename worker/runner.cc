#include "worker/runner.h"

#include <algorithm>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/types/optional.h"
#include "kernels/attention.h"
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
  kv_->ReleaseAll();
  // This thread lives, though it may have waited in vain for a neighbour: a
  // worker that was taken for hung may get a stage again.
  stage_->CountProgress();
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
    const int32_t n_tokens = static_cast<int32_t>(row.tokens.size());
    const bool computes = row.IsComputedBy(links_.index);
    const size_t n_full = computes ? row.taken_over_block_count : blocks.size();
    if (n_full > 0) {
      RETURN_IF_ERROR(kv_->TakeOver(row.sequence_id, blocks.first(n_full)));
    }
    if (computes) {
      RETURN_IF_ERROR(kv_->Extend(row.sequence_id, blocks.subspan(n_full),
                                  row.position, n_tokens, row.draft_count));
    } else if (kv_->TokenCount(row.sequence_id) != row.position + n_tokens) {
      return absl::InvalidArgumentError(absl::StrCat(
          "the row of sequence ", row.sequence_id, ", which stage ",
          links_.index, " does not compute, ends at position ",
          row.position + n_tokens, "; its KV blocks hold ",
          kv_->TokenCount(row.sequence_id), " tokens"));
    }
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
  const int32_t position =
      row.position - static_cast<int32_t>(row.taken_over_tokens.size());
  if (position != sequence.n_recorded) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the row of sequence ", row.sequence_id, " goes on at position ",
        position, "; penalties count the tokens before position ",
        sequence.n_recorded));
  }
  for (const int32_t token : row.taken_over_tokens) Record(token, &sequence);
  // Guesses count when they have come true.
  const absl::Span<const int32_t> tokens = row.tokens;
  for (const int32_t token : tokens.first(tokens.size() - row.draft_count)) {
    Record(token, &sequence);
  }
  return absl::OkStatus();
}

void Runner::Record(int32_t token, SequenceState* sequence) {
  if (sequence->n_recorded++ < sequence->sampler.prompt_token_count) {
    sequence->history.AddPrompt(token);
  } else {
    sequence->history.AddOutput(token);
  }
}

StepLoad Runner::CollectRows(const StepPlan& plan) {
  rows_.clear();
  StepLoad load;
  for (const StepRow& row : plan.rows) {
    if (!row.IsComputedBy(links_.index)) continue;
    const int32_t n = static_cast<int32_t>(row.tokens.size());
    const SamplerParams& sampler =
        sequences_.find(row.sequence_id)->second.sampler;
    WantedLogits wanted =
        LogitsWantedBy(sampler, row.position + n - row.draft_count);
    if (row.draft_count > 0 &&
        !(wanted == LogitsWantedBy(sampler, row.position + n))) {
      wanted = {};
    }
    const int n_scored = static_cast<int>(row.scored_tokens.size());
    if (n_scored > 0) wanted = {};
    rows_.push_back({row.tokens, row.position, kv_->BlockTable(row.sequence_id),
                     n_scored + (row.samples ? 1 + row.draft_count : 0),
                     wanted});
    load.n_tokens += n;
    // Each token attends to those before it and to itself.
    load.n_context += n * (row.position + (n + 1) / 2.0);
  }
  return load;
}

absl::Status Runner::Forward(const StepPlan& plan, StepResult* result) {
  StepLoad load = CollectRows(plan);
  const absl::Time begin = clock_->Now();
  float* hidden = stage_->hidden();
  if (links_.in.hidden != nullptr && !rows_.empty()) {
    RETURN_IF_ERROR(
        links_.in.hidden->Take(plan.step_id, static_cast<int>(load.n_tokens),
                               options_.hidden_states_timeout, &received_));
    hidden = received_.data();
  }
  const absl::Time computing = clock_->Now();
  if (!rows_.empty()) {
    const ThreadPool::CallerBinding binding(*pool_);
    stage_->Forward(rows_, hidden);
    if (links_.is_last_stage()) Sample(plan, hidden, result);
  }
  const absl::Time computed = clock_->Now();
  if (options_.slowdown != nullptr && !rows_.empty()) {
    load.n_rows = stage_->logit_row_count();
    options_.slowdown->Observe(
        static_cast<int>(stage_->weights().layers.size()),
        links_.is_last_stage(), load,
        absl::ToDoubleSeconds(computed - computing));
  }
  absl::Duration waited = computing - begin;
  if (links_.is_last_stage()) {
    RETURN_IF_ERROR(ring_.Send(plan.step_id, result->sampled));
  } else {
    KeepBoundary(hidden);
    RETURN_IF_ERROR(SendHidden(plan, hidden));
  }
  waited += clock_->Now() - computed;
  result->compute_ns = absl::ToInt64Nanoseconds(computed - computing);
  result->wait_ns += absl::ToInt64Nanoseconds(waited);
  return absl::OkStatus();
}

void Runner::KeepBoundary(const float* hidden) {
  const int n = kv_->shape().boundary_size;
  if (n == 0) return;
  for (const MicroBatchRow& row : rows_) {
    for (size_t i = 0; i < row.tokens.size(); ++i, hidden += n) {
      const int32_t position = row.position + static_cast<int32_t>(i);
      std::copy(
          hidden, hidden + n,
          kv_->Boundary(row.block_table[position / kKvBlockSize]) +
              size_t{static_cast<uint32_t>(n)} * (position % kKvBlockSize));
    }
  }
}

absl::Status Runner::SendHidden(const StepPlan& plan, const float* hidden) {
  const size_t n = stage_->weights().config.hidden_size;
  const int next = links_.index + 1;
  sent_.clear();
  const float* computed = hidden;
  // Whether all that was computed, and nothing else, is sent.
  bool is_all = true;
  size_t n_tokens = 0;
  for (const StepRow& row : plan.rows) {
    const bool computes = row.IsComputedBy(links_.index);
    if (row.IsComputedBy(next) != computes) is_all = false;
    if (row.IsComputedBy(next)) n_tokens += row.tokens.size();
  }
  if (n_tokens == 0) return absl::OkStatus();
  if (is_all)
    return links_.out.next->Send(plan.step_id, {hidden, n_tokens * n});
  for (const StepRow& row : plan.rows) {
    const float* from = computed;
    const size_t size = row.tokens.size() * n;
    if (row.IsComputedBy(links_.index)) computed += size;
    if (!row.IsComputedBy(next)) continue;
    if (row.IsComputedBy(links_.index)) {
      sent_.insert(sent_.end(), from, from + size);
      continue;
    }
    if (kv_->shape().boundary_size == 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("step ", plan.step_id, ": stage ", links_.index,
                       " is to send again what it sent for sequence ",
                       row.sequence_id, ", and was not asked to keep it"));
    }
    // Whole blocks.
    const absl::Span<const int32_t> blocks =
        kv_->BlockTable(row.sequence_id)
            .subspan(row.position / kKvBlockSize,
                     row.tokens.size() / kKvBlockSize);
    for (const int32_t block : blocks) {
      const float* kept = kv_->Boundary(block);
      sent_.insert(sent_.end(), kept, kept + kKvBlockSize * n);
    }
  }
  return links_.out.next->Send(plan.step_id, sent_);
}

void Runner::Sample(const StepPlan& plan, const float* hidden,
                    StepResult* result) {
  const int n_logits = stage_->logit_row_count();
  std::vector<SampledToken>& sampled = result->sampled;
  sampled.reserve(n_logits);
  sampling_rows_.clear();
  scored_tokens_.clear();
  n_scored_ = 0;
  int first_logits = 0;
  for (const StepRow& row : plan.rows) {
    AddScoredTokens(row, first_logits, result);
    first_logits += static_cast<int>(row.scored_tokens.size());
    if (!row.samples) continue;
    const int first = static_cast<int>(sampled.size());
    const int32_t end = row.position + static_cast<int32_t>(row.tokens.size());
    for (int32_t position = end - row.draft_count; position <= end;
         ++position) {
      sampled.push_back({row.sequence_id, position, -1, absl::OkStatus()});
    }
    sampling_rows_.push_back(
        {&sequences_.find(row.sequence_id)->second,
         absl::MakeConstSpan(row.tokens).last(row.draft_count),
         sampled.data() + first, first_logits});
    first_logits += 1 + row.draft_count;
  }
  size_t row_begin = 0;
  for (int begin = 0; begin < n_logits; begin += Stage::kLogitRows) {
    const int end = std::min(begin + Stage::kLogitRows, n_logits);
    stage_->ComputeLogits(begin, end - begin, hidden);
    Score(begin, end, result);
    size_t row_end = row_begin;
    while (row_end < sampling_rows_.size() &&
           sampling_rows_[row_end].first_logits < end) {
      ++row_end;
    }
    pool_->ParallelForEach(row_end - row_begin, [&](int64_t i, int thread) {
      SampleRow(&sampling_rows_[row_begin + i], begin, end, &scratch_[thread]);
    });
    // The last one may go on among the next logits.
    row_begin = std::max<size_t>(row_end, 1) - 1;
  }
  FinishScores(result);
  // Closes the gaps behind guesses that did not come true.
  size_t n_sampled = 0;
  for (const SamplingRow& row : sampling_rows_) {
    for (int i = 0; i < row.n_sampled; ++i) {
      SampledToken& token = row.sampled[i];
      if (&sampled[n_sampled] != &token) sampled[n_sampled] = std::move(token);
      ++n_sampled;
    }
  }
  sampled.resize(n_sampled);
}

void Runner::AddScoredTokens(const StepRow& row, int first_logits,
                             StepResult* result) {
  if (row.scored_tokens.empty()) return;
  const int n_scored = static_cast<int>(row.scored_tokens.size());
  const int32_t last = row.position + static_cast<int32_t>(row.tokens.size()) -
                       (row.samples ? 1 : 0);
  const int n_alternatives =
      sequences_.find(row.sequence_id)->second.sampler.prompt_logprobs;
  for (int i = 0; i < n_scored; ++i) {
    scored_tokens_.push_back({first_logits + i, result->scored.size(),
                              static_cast<size_t>(i), row.scored_tokens[i],
                              n_alternatives, absl::OkStatus()});
  }
  ScoredRow& scored = result->scored.emplace_back();
  scored.sequence_id = row.sequence_id;
  scored.position = last - n_scored + 1;
  scored.tokens.resize(n_scored);
}

// Takes those whose logits are among [logits_begin, logits_end) of the step.
void Runner::Score(int logits_begin, int logits_end, StepResult* result) {
  const size_t begin = n_scored_;
  while (n_scored_ < scored_tokens_.size() &&
         scored_tokens_[n_scored_].logits < logits_end) {
    ++n_scored_;
  }
  pool_->ParallelForEach(n_scored_ - begin, [&](int64_t i, int thread) {
    ScoredToken& token = scored_tokens_[begin + i];
    ScoredRow& row = result->scored[token.row];
    absl::StatusOr<TokenLogprobs> logprobs = ScoreToken(
        stage_->logits(token.logits - logits_begin), token.token_id,
        token.n_alternatives, row.position + static_cast<int32_t>(token.i),
        &scratch_[thread]);
    if (logprobs.ok()) {
      row.tokens[token.i] = *std::move(logprobs);
    } else {
      token.status = logprobs.status();
    }
  });
}

// A row with one token that failed has failed.
void Runner::FinishScores(StepResult* result) const {
  for (const ScoredToken& token : scored_tokens_) {
    ScoredRow& row = result->scored[token.row];
    if (token.status.ok() || !row.status.ok()) continue;
    row.status = token.status;
    row.tokens.clear();
  }
}

// Of the logits [logits_begin, logits_end) of the step, takes those that are
// the row's.
void Runner::SampleRow(SamplingRow* row, int logits_begin, int logits_end,
                       SamplerScratch* scratch) const {
  while (row->goes_on) {
    const int i = row->first_logits + row->n_sampled;
    if (i >= logits_end) return;
    SampledToken& token = row->sampled[row->n_sampled];
    SampleOne(stage_->logits(i - logits_begin), *row->sequence, scratch,
              &token);
    const size_t n_before = row->n_sampled++;
    row->goes_on = n_before < row->drafts.size() &&
                   token.token_id == row->drafts[n_before];
    if (row->goes_on && row->sequence->sampler.NeedsHistory()) {
      Record(token.token_id, row->sequence);
    }
  }
}

void Runner::SampleOne(absl::Span<const float> logits,
                       const SequenceState& sequence, SamplerScratch* scratch,
                       SampledToken* token) const {
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
