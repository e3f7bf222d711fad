#include "coordinator/scheduler.h"

#include <algorithm>
#include <iterator>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "util/logging.h"

namespace tern {
namespace {

// Whether `a` may take a place from `b` that has it already: merely being
// earlier is no reason.
bool IsMoreUrgent(const Sequence& a, const Sequence& b) {
  return std::make_tuple(a.parameters.sequence_class, -a.parameters.priority) <
         std::make_tuple(b.parameters.sequence_class, -b.parameters.priority);
}

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace

Scheduler::Scheduler(const Options& options) : options_(options) {
  CHECK(options.max_step_tokens > 0);
  CHECK(options.max_sequences > 0);
  CHECK(options.max_waiting > 0);
  CHECK(options.prefill_spread_steps > 0);
  CHECK(options.min_prefill_tokens > 0);
}

std::vector<SequenceEvent> Scheduler::StartEpoch(const Capacity& capacity) {
  CHECK(!has_pipeline());
  CHECK(capacity.max_in_flight > 0);
  blocks_ =
      std::make_unique<BlockManager>(capacity.n_blocks, capacity.block_size);
  max_in_flight_ = capacity.max_in_flight;
  last_step_id_ = 0;
  std::vector<SequenceEvent> events;
  for (auto it = waiting_.begin(); it != waiting_.end();) {
    Sequence* sequence = (it++)->second;
    sequence->last_step_id = 0;
    absl::Status status = CheckFits(sequence->parameters);
    if (status.ok()) continue;
    SequenceEvent event;
    event.id = sequence->id;
    event.ended = true;
    event.status = std::move(status);
    events.push_back(std::move(event));
    Erase(sequence);
  }
  return events;
}

void Scheduler::PreemptAll() {
  while (!running_.empty()) Preempt(running_.begin()->second);
  for (const auto& [id, sequence] : sequences_) sequence->in_flight_step_id = 0;
  in_flight_.clear();
  released_run_ids_.clear();
  blocks_.reset();
}

absl::Status Scheduler::Add(int64_t first_id, SequenceParameters parameters,
                            int n_samples) {
  CHECK(n_samples > 0);
  if (!HasRoomFor(n_samples)) {
    return absl::ResourceExhaustedError(
        n_samples == 1
            ? absl::StrCat(n_waiting(),
                           " requests wait already, which is this cluster's "
                           "limit; try again later")
            : absl::StrCat(
                  "the request asks for ", n_samples, " answers and ",
                  n_waiting(), " wait already; this cluster's limit is ",
                  options_.max_waiting, ": try again later, or ask for fewer"));
  }
  if (has_pipeline()) {
    absl::Status fits = CheckFits(parameters);
    if (!fits.ok()) return fits;
  }
  for (int i = 0; i < n_samples; ++i) {
    const int64_t id = first_id + i;
    CHECK(!sequences_.contains(id));
    parameters.sampler.sample_index = i;
    auto sequence = std::make_unique<Sequence>(id, parameters);
    waiting_.insert({sequence->rank(), sequence.get()});
    if (sequence->parameters.deadline < absl::InfiniteFuture()) {
      deadlines_.insert({sequence->parameters.deadline, id});
    }
    sequences_[id] = std::move(sequence);
  }
  return absl::OkStatus();
}

absl::Status Scheduler::CheckFits(const SequenceParameters& parameters) const {
  const int64_t n_prompt = parameters.prompt.size();
  const int64_t n_positions = n_prompt + parameters.max_output_tokens - 1;
  const int64_t n_cached =
      static_cast<int64_t>(blocks_->n_blocks()) * blocks_->block_size();
  if (n_positions <= n_cached) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      absl::StrCat("prompt of ", n_prompt, " tokens and max_output_tokens ",
                   parameters.max_output_tokens, " need ", n_positions,
                   " positions of KV cache; the whole cluster has ", n_cached,
                   ": shorten one of them, or give the workers more memory"));
}

std::optional<StepPlan> Scheduler::Schedule() {
  if (!has_pipeline()) return std::nullopt;
  if (n_in_flight() >= max_in_flight_) return std::nullopt;

  StepPlan plan;
  plan.step_id = last_step_id_ + 1;
  step_tokens_ = 0;
  in_flight_.push_back({plan.step_id, {}});
  AdmitWaiting();
  ServeHighestRank();
  AddDecodeRows(&plan);
  AddPrefillRows(&plan);
  // Releases ride on the next rows; they get a plan of their own only when no
  // result is awaited that would bring some.
  if (plan.rows.empty() && (released_run_ids_.empty() || n_in_flight() > 1)) {
    in_flight_.pop_back();
    return std::nullopt;
  }
  last_step_id_ = plan.step_id;
  plan.released_run_ids = std::move(released_run_ids_);
  released_run_ids_.clear();
  return plan;
}

// In order: who cannot be admitted keeps the later ones waiting, else a large
// one would wait for ever.
void Scheduler::AdmitWaiting() {
  for (;;) {
    // One that still awaits a token from before its pre-emption has it soon.
    auto next = std::find_if(
        waiting_.begin(), waiting_.end(),
        [](const auto& w) { return w.second->in_flight_step_id == 0; });
    if (next == waiting_.end() || !TryAdmit(next->second)) return;
  }
}

// Takes the blocks of the highest rank's next row before others may: once they
// have rows in the plan they cannot be pre-empted any more.
void Scheduler::ServeHighestRank() {
  if (running_.empty()) return;
  Sequence* sequence = running_.begin()->second;
  if (sequence->in_flight_step_id != 0) return;
  const int n_tokens =
      std::min(sequence->n_pending(), options_.max_step_tokens);
  TryAllocate(sequence, sequence->n_computed + n_tokens);
}

void Scheduler::AddDecodeRows(StepPlan* plan) {
  int n_decoding = 0;
  std::vector<Sequence*> ready;
  for (const auto& [rank, sequence] : running_) {
    if (!sequence->IsDecoding()) continue;
    ++n_decoding;
    if (sequence->in_flight_step_id == 0) ready.push_back(sequence);
  }
  int n_rows_left = std::min<int64_t>(CeilDiv(n_decoding, max_in_flight_),
                                      options_.max_step_tokens);
  // Whoever waited longest has its turn; among equals the higher rank.
  std::stable_sort(ready.begin(), ready.end(),
                   [](const Sequence* a, const Sequence* b) {
                     return a->last_step_id < b->last_step_id;
                   });
  for (Sequence* sequence : ready) {
    if (n_rows_left == 0) return;
    if (sequence->run_id == 0) continue;  // pre-empted by one before
    // Without a block it loses its turn, not its place: others go on.
    if (!TryAllocate(sequence, sequence->n_tokens())) continue;
    AddRow(sequence, 1, plan);
    --n_rows_left;
  }
}

void Scheduler::AddPrefillRows(StepPlan* plan) {
  int64_t budget = StepTokensLeft();
  // With others decoding (their rows may be in other micro-batches), or with
  // several micro-batches to fill, a step takes a share of the prompts only.
  bool any_decoding = false;
  for (const auto& [rank, sequence] : running_) {
    any_decoding = any_decoding || (sequence->IsDecoding());
  }
  const int spread = std::max(max_in_flight_,
                              any_decoding ? options_.prefill_spread_steps : 1);
  if (spread > 1) {
    budget = std::min(budget,
                      std::max<int64_t>(CeilDiv(PrefillTokensWaiting(), spread),
                                        options_.min_prefill_tokens));
  }

  // Rows below may pre-empt other sequences, hence the copy.
  std::vector<Sequence*> prefilling;
  for (const auto& [rank, sequence] : running_) {
    if (!sequence->IsDecoding() && sequence->in_flight_step_id == 0) {
      prefilling.push_back(sequence);
    }
  }
  for (Sequence* sequence : prefilling) {
    if (budget <= 0) return;
    if (sequence->run_id == 0) continue;  // pre-empted by one before
    const int n_tokens = std::min<int64_t>(budget, sequence->n_pending());
    if (!TryAllocate(sequence, sequence->n_computed + n_tokens)) continue;
    AddRow(sequence, n_tokens, plan);
    budget -= n_tokens;
  }
}

bool Scheduler::TryAdmit(Sequence* sequence) {
  // Room for its whole log, the next token, and one more block for each that
  // runs: admitting more would only lead to pre-emption.
  const int n_needed = blocks_->BlocksFor(
      std::min(sequence->n_tokens() + 1, sequence->n_positions_max()));
  while (n_running() >= options_.max_sequences ||
         (n_running() > 0 &&
          n_needed + n_running() > blocks_->n_free() - BlocksPromised())) {
    if (!PreemptLowerThan(*sequence, /*strictly_less_urgent=*/true)) {
      return false;
    }
  }
  waiting_.erase({sequence->rank(), sequence});
  running_.insert({sequence->rank(), sequence});
  sequence->run_id = ++last_run_id_;
  return true;
}

// Blocks that running sequences still need for what they hold already.
int Scheduler::BlocksPromised() const {
  int n = 0;
  for (const auto& [rank, sequence] : running_) {
    const int n_needed = blocks_->BlocksFor(sequence->n_tokens());
    n += std::max(0, n_needed - static_cast<int>(sequence->block_ids.size()));
  }
  return n;
}

int64_t Scheduler::PrefillTokensWaiting() const {
  int64_t n = 0;
  for (const auto& [rank, sequence] : running_) {
    if (!sequence->IsDecoding()) n += sequence->n_pending();
  }
  // Only those who may come to run soon.
  int n_slots = options_.max_sequences - n_running();
  for (const auto& [rank, sequence] : waiting_) {
    if (n_slots-- <= 0) break;
    n += sequence->n_pending();
  }
  return n;
}

// Takes the blocks that `n_positions` positions need beyond those held,
// pre-empting sequences of lower rank. False, with nothing taken, when they
// cannot be had now: others then hold them, and go on.
bool Scheduler::TryAllocate(Sequence* sequence, int n_positions) {
  const int n_new = blocks_->BlocksFor(n_positions) -
                    static_cast<int>(sequence->block_ids.size());
  while (blocks_->n_free() < n_new) {
    if (!PreemptLowerThan(*sequence, /*strictly_less_urgent=*/false)) {
      return false;
    }
  }
  for (int i = 0; i < n_new; ++i) {
    sequence->block_ids.push_back(blocks_->Allocate());
  }
  return true;
}

// Pre-empts the running sequence of the lowest rank, if that is below
// `sequence`'s and has no row in the plan being made.
bool Scheduler::PreemptLowerThan(const Sequence& sequence,
                                 bool strictly_less_urgent) {
  const int64_t step_id = in_flight_.back().step_id;
  for (auto it = running_.rbegin(); it != running_.rend(); ++it) {
    Sequence* victim = it->second;
    if (victim->rank() <= sequence.rank()) return false;
    if (strictly_less_urgent && !IsMoreUrgent(sequence, *victim)) return false;
    if (victim->in_flight_step_id == step_id) continue;
    Preempt(victim);
    return true;
  }
  return false;
}

void Scheduler::AddRow(Sequence* sequence, int n_tokens, StepPlan* plan) {
  CHECK(n_tokens > 0 && n_tokens <= sequence->n_pending());
  CHECK(n_tokens <= StepTokensLeft());
  CHECK(sequence->in_flight_step_id == 0);
  if (sequence->n_computed == 0) {
    plan->new_sequences.push_back(
        {sequence->run_id, sequence->parameters.sampler,
         sequence->parameters.stop_token_ids,
         sequence->parameters.min_output_tokens, sequence->n_prompt});
  }
  StepRow row;
  row.run_id = sequence->run_id;
  row.position = sequence->n_computed;
  const auto begin = sequence->tokens.begin() + sequence->n_computed;
  row.tokens.assign(begin, begin + n_tokens);
  row.samples = n_tokens == sequence->n_pending();
  sequence->n_computed += n_tokens;
  // Blocks beyond this row, taken early, are told with the row that needs them.
  const int n_blocks = blocks_->BlocksFor(sequence->n_computed);
  row.new_block_ids.assign(
      sequence->block_ids.begin() + sequence->n_blocks_sent,
      sequence->block_ids.begin() + n_blocks);
  sequence->n_blocks_sent = n_blocks;
  sequence->in_flight_step_id = plan->step_id;
  sequence->last_step_id = plan->step_id;
  step_tokens_ += n_tokens;
  in_flight_.back().rows.push_back({sequence->id, sequence->run_id,
                                    row.samples ? sequence->n_tokens() : -1});
  plan->rows.push_back(std::move(row));
}

absl::Status Scheduler::Complete(const StepResult& result,
                                 std::vector<SequenceEvent>* events) {
  if (in_flight_.empty() || in_flight_.front().step_id != result.step_id) {
    return absl::InternalError(absl::StrCat(
        "the pipeline answered step ", result.step_id, "; step ",
        in_flight_.empty() ? 0 : in_flight_.front().step_id, " is due"));
  }
  const std::vector<InFlightRow>& rows = in_flight_.front().rows;
  size_t n_sampling = 0;
  for (const InFlightRow& row : rows) {
    if (row.position_sampled < 0) continue;
    const size_t i = n_sampling++;
    if (i >= result.sampled.size() || result.sampled[i].run_id != row.run_id ||
        result.sampled[i].position != row.position_sampled) {
      return absl::InternalError(absl::StrCat(
          "step ", result.step_id, " came back without the token of sequence ",
          row.run_id, " at position ", row.position_sampled));
    }
    const Sequence* sequence = Find(row.id);
    if (sequence != nullptr && sequence->parameters.sampler.logprobs >= 0 &&
        result.sampled[i].status.ok() &&
        !result.sampled[i].logprobs.has_value()) {
      return absl::InternalError(absl::StrCat(
          "step ", result.step_id, " came back without the log-probability of ",
          "sequence ", row.run_id, " at position ", row.position_sampled));
    }
  }
  if (result.sampled.size() != n_sampling) {
    return absl::InternalError(absl::StrCat(
        "step ", result.step_id, " came back with ", result.sampled.size(),
        " tokens; it asked for ", n_sampling));
  }

  size_t i = 0;
  for (const InFlightRow& row : rows) {
    const SampledToken* sampled =
        row.position_sampled < 0 ? nullptr : &result.sampled[i++];
    auto it = sequences_.find(row.id);
    if (it == sequences_.end()) continue;  // It ended while the step ran.
    Sequence* sequence = it->second.get();
    CHECK(sequence->in_flight_step_id == result.step_id);
    sequence->in_flight_step_id = 0;
    if (sampled == nullptr) continue;
    SequenceEvent event;
    event.id = row.id;
    if (!sampled->status.ok()) {
      event.ended = true;
      event.status = sampled->status;
    } else {
      const Sequence::Ending ending = sequence->Append(sampled->token_id);
      event.token = sampled->token_id;
      if (sequence->parameters.sampler.logprobs >= 0) {
        event.logprobs = sampled->logprobs;
      }
      event.ended = ending.ended;
      event.reason = ending.reason;
      event.stop_token_id = ending.stop_token_id;
    }
    if (event.ended) Erase(sequence);
    events->push_back(std::move(event));
  }
  in_flight_.pop_front();
  return absl::OkStatus();
}

bool Scheduler::Abort(int64_t id) {
  auto it = sequences_.find(id);
  if (it == sequences_.end()) return false;
  Erase(it->second.get());
  return true;
}

std::vector<SequenceEvent> Scheduler::ExpireDeadlines(absl::Time now) {
  std::vector<SequenceEvent> events;
  while (!deadlines_.empty() && deadlines_.begin()->first <= now) {
    Sequence* sequence = sequences_.at(deadlines_.begin()->second).get();
    SequenceEvent event;
    event.id = sequence->id;
    event.ended = true;
    event.status = absl::DeadlineExceededError(
        absl::StrCat("the request's deadline passed after ",
                     sequence->n_output(), " output tokens"));
    events.push_back(std::move(event));
    Erase(sequence);
  }
  return events;
}

absl::Time Scheduler::next_deadline() const {
  return deadlines_.empty() ? absl::InfiniteFuture()
                            : deadlines_.begin()->first;
}

const Sequence* Scheduler::Find(int64_t id) const {
  auto it = sequences_.find(id);
  return it == sequences_.end() ? nullptr : it->second.get();
}

void Scheduler::Preempt(Sequence* sequence) {
  ReleaseRun(sequence);
  running_.erase({sequence->rank(), sequence});
  waiting_.insert({sequence->rank(), sequence});
  ++n_preemptions_;
}

// Plans run in order on every stage, so blocks may be given away at once, even
// under a step in flight: whoever gets them does so in a later plan.
void Scheduler::ReleaseRun(Sequence* sequence) {
  if (sequence->n_computed > 0) released_run_ids_.push_back(sequence->run_id);
  blocks_->Release(sequence->block_ids);
  sequence->block_ids.clear();
  sequence->n_blocks_sent = 0;
  sequence->run_id = 0;
  sequence->n_computed = 0;
}

void Scheduler::Erase(Sequence* sequence) {
  if (sequence->run_id != 0) {
    ReleaseRun(sequence);
    running_.erase({sequence->rank(), sequence});
  } else {
    waiting_.erase({sequence->rank(), sequence});
  }
  deadlines_.erase({sequence->parameters.deadline, sequence->id});
  sequences_.erase(sequence->id);
}

}  // namespace tern
