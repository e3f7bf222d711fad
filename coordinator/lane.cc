#include "coordinator/lane.h"

#include <algorithm>
#include <map>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "coordinator/draft_choice.h"
#include "util/logging.h"
#include "util/status_macros.h"

namespace tern {
namespace {

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace

Lane::Lane(int index, const Options& options, const Capacity& capacity,
           FairQueue* queue, BlockManager blocks)
    : index_(index),
      options_(options),
      capacity_(capacity),
      queue_(queue),
      blocks_(std::move(blocks)),
      draft_chooser_({options.max_draft_tokens, options.always_drafts}) {
  CHECK(capacity.n_micro_batches > 0);
  CHECK(blocks_.n_blocks() == capacity.n_blocks &&
        blocks_.block_size() == capacity.block_size);
}

bool Lane::CanHold(int64_t n_positions) const {
  return n_positions <=
         static_cast<int64_t>(blocks_.n_blocks()) * blocks_.block_size();
}

bool Lane::HasRoomFor(const Sequence& sequence) {
  if (n_running() >= options_.max_sequences) return false;
  if (n_running() == 0) return true;
  const int n_needed =
      blocks_.BlocksFor(
          std::min(sequence.n_tokens() + 1, sequence.n_positions_max())) -
      LookUp(sequence.parameters, sequence.tokens).n_blocks_in_use;
  return n_needed + n_running() <= blocks_.n_free() - BlocksPromised();
}

int Lane::CachedTokens(const SequenceParameters& parameters,
                       absl::Span<const int32_t> tokens) {
  return LookUp(parameters, tokens).n_tokens;
}

int64_t Lane::TokensAhead(const SequenceParameters& parameters,
                          absl::Span<const int32_t> tokens) {
  return PrefillTokensWaiting() + n_running() +
         static_cast<int64_t>(tokens.size()) - CachedTokens(parameters, tokens);
}

void Lane::Take(Sequence* sequence) {
  CHECK(sequence->pipeline < 0);
  queue_->Start(sequence);
  sequence->pipeline = index_;
  sequence->run_id = ++last_run_id_;
  sequence->last_step_id = 0;
  if (options_.prefix_cache) {
    sequence->prefix = blocks_.Root(sequence->parameters.tenant);
    counters_.looked_up_tokens += sequence->n_tokens();
    // At once: what is there now may be gone when its turn comes.
    TakeOverBlocks(sequence);
  }
  running_.insert({sequence->rank(), sequence});
}

// Plans run in order on every stage, so blocks may be given away at once, even
// under a step in flight: whoever gets them does so in a later plan.
void Lane::Release(Sequence* sequence) {
  CHECK(sequence->pipeline == index_);
  running_.erase({sequence->rank(), sequence});
  if (sequence->is_open) released_run_ids_.push_back(sequence->run_id);
  blocks_.Release(sequence->block_ids);
  sequence->pipeline = -1;
  sequence->run_id = 0;
  sequence->is_open = false;
  sequence->n_computed = 0;
  sequence->block_ids.clear();
  sequence->n_blocks_sent = 0;
  sequence->n_blocks_known = 0;
  sequence->prefix = 0;
  sequence->n_blocks_taken_over = 0;
}

void Lane::Preempt(Sequence* sequence) {
  Release(sequence);
  queue_->Return(sequence);
  ++counters_.preemptions;
}

std::optional<StepPlan> Lane::Schedule() {
  if (!CanSchedule()) return std::nullopt;
  if (n_in_flight() >= capacity_.n_micro_batches && AwaitsDrafts()) {
    return std::nullopt;
  }
  StepPlan plan;
  plan.step_id = last_step_id_ + 1;
  step_tokens_ = 0;
  in_flight_.push_back({plan.step_id, {}});
  ServeHighestRank();
  // The first stage waits for tokens that are not sampled yet, and whatever is
  // behind waits with it: so only in the step beyond those that keep all stages
  // busy, or when nothing else is to do.
  AddDecodeRows(/*ahead=*/n_in_flight() > capacity_.n_micro_batches, &plan);
  AddDrafts(&plan);
  AddPrefillRows(&plan);
  if (plan.rows.empty()) AddDecodeRows(/*ahead=*/true, &plan);
  // Releases ride on the next rows; they get a plan of their own only when no
  // result is awaited that would bring some.
  if (plan.rows.empty() && (released_run_ids_.empty() || n_in_flight() > 1)) {
    in_flight_.pop_back();
    return std::nullopt;
  }
  last_step_id_ = plan.step_id;
  in_flight_.back().n_tokens = step_tokens_;
  plan.released_run_ids = std::move(released_run_ids_);
  released_run_ids_.clear();
  return plan;
}

// Takes the blocks of the highest rank's next row before others may: once they
// have rows in the plan they cannot be pre-empted any more.
void Lane::ServeHighestRank() {
  if (running_.empty()) return;
  Sequence* sequence = running_.begin()->second;
  if (sequence->in_flight_step_id != 0) return;
  TakeOverBlocks(sequence);
  // Those are there already.
  if (!LostBlocksOf(*sequence, 1).empty()) return;
  const int n_tokens =
      std::min(sequence->n_pending(), options_.max_step_tokens);
  TryAllocate(sequence, sequence->n_computed + n_tokens);
}

// Its row in flight is of the oldest step, so that this one comes no earlier
// than its turn, and micro-batches stay as they are. With guesses in flight it
// is not known where the next row begins.
bool Lane::MayPlanAhead(const Sequence& sequence) const {
  return capacity_.looks_ahead && sequence.n_in_flight == 1 &&
         !sequence.drafts_in_flight &&
         sequence.last_step_id == in_flight_.front().step_id;
}

// Of the token that it awaits only a stop token would end it: then what comes
// of the row is of no interest.
bool Lane::MayLookAhead(const Sequence& sequence) const {
  return MayPlanAhead(sequence) && sequence.n_pending() == 0 &&
         sequence.n_output() + 1 < sequence.parameters.max_output_tokens;
}

void Lane::AddDecodeRows(bool ahead, StepPlan* plan) {
  int n_decoding = 0;
  std::vector<Sequence*> ready;
  for (const auto& [rank, sequence] : running_) {
    if (!sequence->IsDecoding()) continue;
    ++n_decoding;
    if (sequence->in_flight_step_id == 0 ||
        (sequence->n_pending() == 1 && MayPlanAhead(*sequence)) ||
        (ahead && MayLookAhead(*sequence))) {
      ready.push_back(sequence);
    }
  }
  int n_rows_left = std::min<int64_t>(
      CeilDiv(n_decoding, capacity_.n_micro_batches), options_.max_step_tokens);
  // Whoever waited longest has its turn; among equals the higher rank.
  std::stable_sort(ready.begin(), ready.end(),
                   [](const Sequence* a, const Sequence* b) {
                     return a->last_step_id < b->last_step_id;
                   });
  for (Sequence* sequence : ready) {
    if (n_rows_left == 0) return;
    if (sequence->run_id == 0) continue;  // pre-empted by one before
    // Without a block it loses its turn, not its place: others go on.
    if (!TryAllocate(sequence, sequence->n_computed + 1)) continue;
    AddRow(sequence, 1, plan);
    --n_rows_left;
  }
}

// Guesses for the decode rows of the plan, as far as there are free blocks.
void Lane::AddDrafts(StepPlan* plan) {
  const int n_rows = static_cast<int>(plan->rows.size());
  // Prompts fill the step better.
  if (PrefillTokensWaiting() > 0 && !options_.always_drafts) return;
  if (!draft_chooser_.MayPay(n_rows, cost_)) return;
  std::vector<Sequence*> sequences;
  for (const auto& [rank, sequence] : running_) {
    if (sequence->in_flight_step_id == plan->step_id) {
      sequences.push_back(sequence);
    }
  }
  CHECK(static_cast<int>(sequences.size()) == n_rows);
  std::vector<std::vector<int32_t>> guesses;
  std::vector<DraftOffer> offers;
  for (Sequence* sequence : sequences) {
    // Those planned ahead have a token to come that their guesses would follow.
    const int n_max =
        sequence->n_in_flight > 1
            ? 0
            : std::min(options_.max_draft_tokens,
                       sequence->n_positions_max() - sequence->n_computed);
    guesses.push_back(sequence->lookup.Guess(sequence->tokens, n_max));
    offers.push_back({static_cast<int>(guesses.back().size()),
                      sequence->draft_chance, sequence->draft_chance});
  }
  const std::vector<int> counts = draft_chooser_.Choose(
      offers, step_tokens_, options_.max_step_tokens - step_tokens_, cost_,
      absl::ZeroDuration());
  for (size_t i = 0; i < sequences.size(); ++i) {
    Sequence* const sequence = sequences[i];
    const auto is_of_sequence = [sequence](const auto& row) {
      return row.run_id == sequence->run_id;
    };
    StepRow& row =
        *std::find_if(plan->rows.begin(), plan->rows.end(), is_of_sequence);
    int n = counts[i];
    while (n > 0 && blocks_.BlocksFor(sequence->n_computed + n) >
                        static_cast<int>(sequence->block_ids.size()) +
                            blocks_.n_free()) {
      --n;
    }
    if (n == 0) {
      if (offers[i].n_guesses > 0) sequence->ObserveDrafts(0, 0);
      continue;
    }
    CHECK(TryAllocate(sequence, sequence->n_computed + n));
    guesses[i].resize(n);
    row.tokens.insert(row.tokens.end(), guesses[i].begin(), guesses[i].end());
    row.n_drafts = n;
    SendBlocks(sequence, sequence->n_computed + n, &row);
    sequence->drafts_in_flight = true;
    step_tokens_ += n;
    counters_.drafted_tokens += n;
    draft_chooser_.OnTried();
    std::vector<InFlightRow>& in_flight = in_flight_.back().rows;
    std::find_if(in_flight.begin(), in_flight.end(), is_of_sequence)->drafts =
        std::move(guesses[i]);
  }
}

// Whether to wait for the step in flight rather than to plan the next one ahead
// of its tokens: with them it could have guesses that are worth more.
bool Lane::AwaitsDrafts() {
  std::vector<DraftOffer> offers;
  const std::vector<InFlightRow>& rows = in_flight_.front().rows;
  if (PrefillTokensWaiting() > 0) return false;
  if (!draft_chooser_.MayPay(static_cast<int>(rows.size()), cost_))
    return false;
  for (const auto& [rank, sequence] : running_) {
    if (sequence->in_flight_step_id != in_flight_.front().step_id) continue;
    // Where its next row begins depends on what comes true.
    if (sequence->drafts_in_flight) return true;
    const int n_max =
        std::min(options_.max_draft_tokens,
                 sequence->n_positions_max() - sequence->n_computed);
    // As far as can be told before the token in flight is there: it is the
    // first of these guesses, the others follow if it comes true.
    const int n_guesses = static_cast<int>(
        sequence->lookup.Guess(sequence->tokens, std::max(0, n_max)).size());
    offers.push_back({std::max(0, n_guesses - 1),
                      sequence->draft_chance * sequence->draft_chance,
                      sequence->draft_chance});
  }
  if (offers.empty()) return false;
  const int n_rows = static_cast<int>(offers.size());
  const std::vector<int> counts =
      draft_chooser_.Choose(offers, n_rows, options_.max_step_tokens - n_rows,
                            cost_, options_.turnaround);
  return std::any_of(counts.begin(), counts.end(), [](int n) { return n > 0; });
}

void Lane::AddPrefillRows(StepPlan* plan) {
  int budget = PrefillBudget();
  // Rows below may pre-empt other sequences, hence the copy.
  std::vector<Sequence*> prefilling;
  for (const auto& [rank, sequence] : running_) {
    if (!sequence->IsDecoding() &&
        (sequence->in_flight_step_id == 0 || MayPlanAhead(*sequence))) {
      prefilling.push_back(sequence);
    }
  }
  std::stable_sort(prefilling.begin(), prefilling.end(),
                   [this](const Sequence* a, const Sequence* b) {
                     return std::make_pair(a->level(), queue_->ServedTo(*a)) <
                            std::make_pair(b->level(), queue_->ServedTo(*b));
                   });
  const int block_size = blocks_.block_size();
  for (Sequence* sequence : prefilling) {
    if (budget <= 0) return;
    if (sequence->run_id == 0) continue;  // pre-empted by one before
    // When another's row in this step computes what it needs next, it is taken
    // over in the step after.
    if (!TakeOverBlocks(sequence)) continue;
    if (const std::vector<BlockManager::Known> lost =
            LostBlocksOf(*sequence, std::max(1, budget / block_size));
        !lost.empty()) {
      const int n_lost = static_cast<int>(lost.size()) * block_size;
      if (n_lost > options_.max_step_tokens - step_tokens_) continue;
      AddRefillRow(sequence, lost, plan);
      budget -= n_lost;
      continue;
    }
    int n_tokens = std::min(budget, sequence->n_pending());
    if (n_tokens < sequence->n_pending()) {
      // Whole blocks, which can be shared.
      const int end = sequence->n_computed + n_tokens;
      const int whole = end / block_size * block_size - sequence->n_computed;
      if (whole > 0) n_tokens = whole;
    }
    if (!TryAllocate(sequence, sequence->n_computed + n_tokens)) continue;
    AddRow(sequence, n_tokens, plan);
    budget -= n_tokens;
  }
}

int Lane::PrefillBudget() const {
  int budget = options_.max_step_tokens - step_tokens_;
  // Several micro-batches share the prompts.
  if (capacity_.n_micro_batches > 1) {
    const int64_t share =
        CeilDiv(PrefillTokensWaiting(), capacity_.n_micro_batches);
    budget = static_cast<int>(std::min<int64_t>(
        budget, std::max<int64_t>(share, options_.min_prefill_tokens)));
  }
  // Rows of those who decode may be in other micro-batches, which wait for this
  // one at every stage.
  const int n_decoding = static_cast<int>(std::count_if(
      running_.begin(), running_.end(),
      [](const auto& running) { return running.second->IsDecoding(); }));
  if (n_decoding == 0 || budget <= options_.min_prefill_tokens) return budget;
  // A stream that stands still is worse than those that are slower for it.
  if (std::any_of(running_.begin(), running_.end(), [](const auto& running) {
        return running.second->is_interrupted && !running.second->IsDecoding();
      })) {
    return budget;
  }
  if (!cost_.is_known()) return options_.min_prefill_tokens;
  const int n_rows =
      static_cast<int>(CeilDiv(n_decoding, capacity_.n_micro_batches));
  const absl::Duration limit =
      options_.max_step_stretch * cost_.Predict(n_rows);
  const int n_more =
      cost_.TokensWithin(limit, step_tokens_ + budget) - step_tokens_;
  return std::max(n_more, options_.min_prefill_tokens);
}

void Lane::AddRow(Sequence* sequence, int n_tokens, StepPlan* plan) {
  const bool ahead = sequence->n_pending() == 0;
  CHECK(n_tokens > 0 && n_tokens <= (ahead ? 1 : sequence->n_pending()));
  CHECK(n_tokens <= options_.max_step_tokens - step_tokens_);
  CHECK(sequence->in_flight_step_id == 0 || MayPlanAhead(*sequence));
  const SequenceParameters& parameters = sequence->parameters;
  if (!sequence->is_open) {
    sequence->is_open = true;
    plan->new_sequences.push_back(
        {sequence->run_id, parameters.sampler, parameters.stop_token_ids,
         parameters.min_output_tokens, sequence->n_prompt});
  }
  StepRow row;
  row.run_id = sequence->run_id;
  row.position = sequence->n_computed;
  const auto begin = sequence->tokens.begin() + sequence->n_computed;
  if (ahead) {
    row.sampled_in_step_id = sequence->in_flight_step_id;
  } else {
    row.tokens.assign(begin, begin + n_tokens);
  }
  row.n_taken_over_blocks = sequence->n_blocks_taken_over;
  if (row.n_taken_over_blocks > 0 && parameters.sampler.NeedsHistory()) {
    row.taken_over_tokens.assign(
        begin - row.n_taken_over_blocks * blocks_.block_size(), begin);
  }
  sequence->n_blocks_taken_over = 0;
  row.samples = ahead || n_tokens == sequence->n_pending();
  const int position_scored = AddScoredTokens(*sequence, &row);
  sequence->n_computed += n_tokens;
  sequence->n_computed_ever =
      std::max(sequence->n_computed_ever, sequence->n_computed);
  SendBlocks(sequence, sequence->n_computed, &row);
  sequence->in_flight_step_id = plan->step_id;
  sequence->drafts_in_flight = false;
  ++sequence->n_in_flight;
  sequence->last_step_id = plan->step_id;
  step_tokens_ += n_tokens;
  queue_->Charge(*sequence, n_tokens + (row.samples ? 1 : 0));
  PublishBlocks(sequence, plan->step_id);
  in_flight_.back().rows.push_back(
      {sequence->id,
       sequence->run_id,
       row.samples ? sequence->n_computed : -1,
       parameters.sampler.logprobs >= 0,
       {},
       0,
       position_scored,
       static_cast<int>(row.scored_tokens.size())});
  plan->rows.push_back(std::move(row));
}

// The blocks that hold what the sequence needs next and that the same stages
// have lost; at most so many.
std::vector<BlockManager::Known> Lane::LostBlocksOf(const Sequence& sequence,
                                                    int n_most) const {
  std::vector<BlockManager::Known> lost;
  const int block_size = blocks_.block_size();
  if (!options_.prefix_cache ||
      static_cast<int>(sequence.block_ids.size()) * block_size !=
          sequence.n_computed) {
    return lost;
  }
  const absl::Span<const int32_t> tokens = sequence.tokens;
  BlockManager::PrefixId prefix = sequence.prefix;
  for (int position = sequence.n_computed;
       static_cast<int>(lost.size()) < n_most &&
       position + block_size <= sequence.n_reusable();
       position += block_size) {
    const std::optional<BlockManager::Known> known =
        blocks_.Find(prefix, tokens.subspan(position, block_size));
    if (!known.has_value() || known->lost_by.empty()) break;
    if (!lost.empty() && !(known->lost_by == lost[0].lost_by)) break;
    prefix = known->prefix;
    lost.push_back(*known);
  }
  return lost;
}

// Takes over blocks that some stages have lost, and has these compute them.
void Lane::AddRefillRow(Sequence* sequence,
                        const std::vector<BlockManager::Known>& lost,
                        StepPlan* plan) {
  for (const BlockManager::Known& known : lost) {
    blocks_.AddReference(known.block_id);
    blocks_.Refill(known.block_id, plan->step_id);
    sequence->block_ids.push_back(known.block_id);
    sequence->prefix = known.prefix;
    ++sequence->n_blocks_known;
  }
  const int n_tokens = static_cast<int>(lost.size()) * blocks_.block_size();
  AddRow(sequence, n_tokens, plan);
  StepRow& row = plan->rows.back();
  CHECK(!row.samples && row.scored_tokens.empty());
  row.computing_stages = lost[0].lost_by;
  counters_.refilled_tokens += n_tokens;
}

// Tells the workers of the blocks that so many positions need. Those beyond,
// taken early, are told with the row that needs them.
void Lane::SendBlocks(Sequence* sequence, int n_positions, StepRow* row) {
  const int n_blocks =
      std::max(sequence->n_blocks_sent, blocks_.BlocksFor(n_positions));
  row->new_block_ids.insert(
      row->new_block_ids.end(),
      sequence->block_ids.begin() + sequence->n_blocks_sent,
      sequence->block_ids.begin() + n_blocks);
  sequence->n_blocks_sent = n_blocks;
}

// The tokens of the prompt that come after one of the row's, as far as their
// log-probabilities are wanted and not known. Returns the position of the
// first.
int Lane::AddScoredTokens(const Sequence& sequence, StepRow* row) {
  const int begin = std::max(sequence.n_scored, row->position + 1);
  const int end =
      std::min(sequence.n_prompt, row->position + row->n_tokens() + 1);
  if (begin < end) {
    row->scored_tokens.assign(sequence.tokens.begin() + begin,
                              sequence.tokens.begin() + end);
  }
  return begin;
}

absl::Status Lane::CheckScored(const StepResult& result) const {
  size_t n_scored = 0;
  for (const InFlightRow& row : in_flight_.front().rows) {
    if (row.n_scored == 0) continue;
    const size_t i = n_scored++;
    if (i >= result.scored.size() || result.scored[i].run_id != row.run_id ||
        result.scored[i].position != row.position_scored ||
        (result.scored[i].status.ok() &&
         result.scored[i].tokens.size() != static_cast<size_t>(row.n_scored))) {
      return absl::InternalError(absl::StrCat(
          "step ", result.step_id, " came back without the log-probabilities ",
          "of the ", row.n_scored, " tokens of sequence ", row.run_id,
          " from position ", row.position_scored));
    }
  }
  if (result.scored.size() != n_scored) {
    return absl::InternalError(absl::StrCat(
        "step ", result.step_id, " came back with log-probabilities of ",
        result.scored.size(), " prompts; it asked for ", n_scored));
  }
  return absl::OkStatus();
}

absl::Status Lane::TakeAnswered(const StepResult& result,
                                std::vector<InFlightRow>* rows) {
  if (in_flight_.empty() || in_flight_.front().step_id != result.step_id) {
    return absl::InternalError(absl::StrCat(
        "the pipeline answered step ", result.step_id, "; step ",
        in_flight_.empty() ? 0 : in_flight_.front().step_id, " is due"));
  }
  std::vector<InFlightRow>& in_flight = in_flight_.front().rows;
  size_t n_taken = 0;
  for (InFlightRow& row : in_flight) {
    row.n_sampled = 0;
    if (row.position_sampled < 0) continue;
    bool goes_on = true;
    while (goes_on) {
      RETURN_IF_ERROR(CheckSampled(result, n_taken, row));
      const SampledToken& token = result.sampled[n_taken++];
      // The token after a guess comes with it when it was right.
      goes_on = row.n_sampled < static_cast<int>(row.drafts.size()) &&
                token.status.ok() &&
                token.token_id == row.drafts[row.n_sampled];
      ++row.n_sampled;
    }
  }
  if (result.sampled.size() != n_taken) {
    return absl::InternalError(
        absl::StrCat("step ", result.step_id, " came back with ",
                     result.sampled.size(), " tokens; it asked for ", n_taken));
  }
  RETURN_IF_ERROR(CheckScored(result));
  if (in_flight_.front().n_tokens > 0 && result.busy > absl::ZeroDuration()) {
    cost_.Observe(in_flight_.front().n_tokens, result.busy);
  }
  for (const InFlightRow& row : in_flight) {
    if (row.n_sampled > 0) counters_.accepted_draft_tokens += row.n_sampled - 1;
  }
  *rows = std::move(in_flight);
  in_flight_.pop_front();
  return absl::OkStatus();
}

// That token i of the result is the next one of `row`.
absl::Status Lane::CheckSampled(const StepResult& result, size_t i,
                                const InFlightRow& row) {
  const int position = row.position_sampled + row.n_sampled;
  if (i >= result.sampled.size() || result.sampled[i].run_id != row.run_id ||
      result.sampled[i].position != position) {
    return absl::InternalError(absl::StrCat(
        "step ", result.step_id, " came back without the token of sequence ",
        row.run_id, " at position ", position));
  }
  if (row.wants_logprobs && result.sampled[i].status.ok() &&
      !result.sampled[i].logprobs.has_value()) {
    return absl::InternalError(absl::StrCat(
        "step ", result.step_id, " came back without the log-probability of ",
        "sequence ", row.run_id, " at position ", position));
  }
  return absl::OkStatus();
}

void Lane::TakeDrafts(const InFlightRow& row, Sequence* sequence) {
  const int n_true = row.n_sampled - 1;
  sequence->ObserveDrafts(static_cast<int>(row.drafts.size()), n_true);
  queue_->Charge(*sequence, n_true);
  if (sequence->run_id != row.run_id) return;  // pre-empted meanwhile
  sequence->n_computed += n_true;
  sequence->n_computed_ever =
      std::max(sequence->n_computed_ever, sequence->n_computed);
}

absl::Duration Lane::ExpectedTime() const {
  if (in_flight_.empty() || in_flight_.front().n_tokens == 0) {
    return absl::ZeroDuration();
  }
  return cost_.Predict(in_flight_.front().n_tokens);
}

BlockManager Lane::GiveUpBlocks() {
  CHECK(running_.empty());
  blocks_.StartAnew(in_flight_.empty() ? last_step_id_
                                       : in_flight_.front().step_id - 1);
  return std::move(blocks_);
}

std::vector<int64_t> Lane::InFlight() const {
  std::vector<int64_t> ids;
  for (const InFlightStep& step : in_flight_) {
    for (const InFlightRow& row : step.rows) ids.push_back(row.id);
  }
  return ids;
}

// What a sequence of this text would find if it began here now.
Lane::Cached Lane::LookUp(const SequenceParameters& parameters,
                          absl::Span<const int32_t> tokens) {
  Cached cached;
  // Before there is output, scores of the prompt are still to come.
  if (!options_.prefix_cache || (parameters.sampler.prompt_logprobs >= 0 &&
                                 tokens.size() == parameters.prompt.size())) {
    return cached;
  }
  BlockManager::PrefixId prefix = blocks_.Root(parameters.tenant);
  const int block_size = blocks_.block_size();
  // At least one token is computed: its logits are wanted.
  while (static_cast<size_t>(cached.n_tokens) + block_size < tokens.size()) {
    const std::optional<BlockManager::Known> known =
        blocks_.Find(prefix, tokens.subspan(cached.n_tokens, block_size));
    if (!known.has_value()) break;
    prefix = known->prefix;
    cached.n_tokens += block_size;
    if (blocks_.IsInUse(known->block_id)) ++cached.n_blocks_in_use;
  }
  return cached;
}

// Takes over the blocks that others have computed for what the sequence would
// compute next. False when the step being planned computes the next one.
bool Lane::TakeOverBlocks(Sequence* sequence) {
  if (!options_.prefix_cache) return true;
  const int block_size = blocks_.block_size();
  const absl::Span<const int32_t> tokens = sequence->tokens;
  while (sequence->n_computed + block_size <= sequence->n_reusable() &&
         static_cast<int>(sequence->block_ids.size()) * block_size ==
             sequence->n_computed) {
    const std::optional<BlockManager::Known> known = blocks_.Find(
        sequence->prefix, tokens.subspan(sequence->n_computed, block_size));
    if (!known.has_value()) return true;
    // They are computed again first.
    if (!known->lost_by.empty()) return true;
    if (known->filled_in > last_step_id_) return false;
    blocks_.AddReference(known->block_id);
    sequence->block_ids.push_back(known->block_id);
    sequence->prefix = known->prefix;
    sequence->n_computed += block_size;
    ++sequence->n_blocks_known;
    ++sequence->n_blocks_taken_over;
    counters_.found_tokens += block_size;
    if (sequence->n_computed > sequence->n_computed_ever) {
      sequence->n_computed_ever = sequence->n_computed;
      sequence->n_prompt_cached += std::min(
          block_size,
          std::max(0, sequence->n_prompt - sequence->n_computed + block_size));
    }
  }
  return true;
}

void Lane::PublishBlocks(Sequence* sequence, int64_t step_id) {
  if (!options_.prefix_cache) return;
  const int block_size = blocks_.block_size();
  const absl::Span<const int32_t> tokens = sequence->tokens;
  for (int& n = sequence->n_blocks_known;
       (n + 1) * block_size <=
       std::min(sequence->n_computed, sequence->n_tokens());
       ++n) {
    sequence->prefix =
        blocks_.Publish(sequence->block_ids[n], sequence->prefix,
                        tokens.subspan(n * block_size, block_size), step_id);
  }
}

// Takes the blocks that `n_positions` positions need beyond those held,
// pre-empting sequences of lower rank. False, with nothing taken, when they
// cannot be had now: others then hold them, and go on.
bool Lane::TryAllocate(Sequence* sequence, int n_positions) {
  const int n_new = blocks_.BlocksFor(n_positions) -
                    static_cast<int>(sequence->block_ids.size());
  while (blocks_.n_free() < n_new) {
    Sequence* victim = Victim(*sequence);
    if (victim == nullptr) return false;
    Preempt(victim);
  }
  for (int i = 0; i < n_new; ++i) {
    sequence->block_ids.push_back(blocks_.Allocate());
  }
  return true;
}

// Who gives way to `sequence`: of those of lower rank that have no row in the
// plan being made the least urgent; among these one of the tenant that runs
// most, and its latest.
Sequence* Lane::Victim(const Sequence& sequence) const {
  const int64_t step_id = in_flight_.back().step_id;
  Sequence* victim = nullptr;
  for (auto it = running_.rbegin(); it != running_.rend(); ++it) {
    Sequence* candidate = it->second;
    if (candidate->rank() <= sequence.rank()) break;
    if (candidate->in_flight_step_id == step_id) continue;
    if (victim == nullptr) {
      victim = candidate;
      continue;
    }
    if (candidate->level() != victim->level()) break;
    if (queue_->RunningOf(*candidate) > queue_->RunningOf(*victim)) {
      victim = candidate;
    }
  }
  return victim;
}

// Blocks that running sequences still need for what they hold already.
int Lane::BlocksPromised() const {
  int n = 0;
  for (const auto& [rank, sequence] : running_) {
    const int n_needed = blocks_.BlocksFor(sequence->n_tokens());
    n += std::max(0, n_needed - static_cast<int>(sequence->block_ids.size()));
  }
  return n;
}

int64_t Lane::PrefillTokensWaiting() const {
  int64_t n = 0;
  for (const auto& [rank, sequence] : running_) {
    if (!sequence->IsDecoding()) n += sequence->n_pending();
  }
  return n;
}

}  // namespace tern
