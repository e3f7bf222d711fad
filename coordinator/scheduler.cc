#include "coordinator/scheduler.h"

#include <algorithm>
#include <limits>

#include "absl/strings/str_cat.h"
#include "util/logging.h"
#include "util/status_macros.h"

namespace tern {
namespace {

SequenceEvent EndOf(const Sequence& sequence, absl::Status status) {
  SequenceEvent event;
  event.id = sequence.id;
  event.ended = true;
  event.status = std::move(status);
  return event;
}

// No sequence is of a lesser level.
constexpr Sequence::Level kLeastUrgent = {SequenceClass::kBatch,
                                          std::numeric_limits<int>::max()};

void Accumulate(const Lane::Counters& from, Lane::Counters* to) {
  to->preemptions += from.preemptions;
  to->looked_up_tokens += from.looked_up_tokens;
  to->found_tokens += from.found_tokens;
  to->drafted_tokens += from.drafted_tokens;
  to->accepted_draft_tokens += from.accepted_draft_tokens;
  to->refilled_tokens += from.refilled_tokens;
}

}  // namespace

Scheduler::Scheduler(const Options& options) : options_(options) {
  CHECK(options.max_step_tokens > 0);
  CHECK(options.max_sequences > 0);
  CHECK(options.max_waiting > 0);
  CHECK(options.max_waiting_tokens > 0);
  CHECK(options.max_step_stretch >= 1);
  CHECK(options.min_prefill_tokens > 0);
}

std::vector<SequenceEvent> Scheduler::StartPipeline(
    int index, const Capacity& capacity, std::optional<BlockManager> kept) {
  CHECK(index >= 0 && lane(index) == nullptr);
  // Only whole blocks are computed again.
  if (!kept.has_value() || options_.max_step_tokens < capacity.block_size) {
    kept.emplace(capacity.n_blocks, capacity.block_size);
  }
  lanes_[index] = std::make_unique<Lane>(index, options_, capacity, &queue_,
                                         *std::move(kept));
  for (const int64_t id : unplaceable_) {
    queue_.Enter(sequences_.at(id).get());
  }
  unplaceable_.clear();
  std::vector<SequenceEvent> events;
  for (Sequence* sequence : queue_.Waiting()) {
    if (FitsAny(*sequence)) continue;
    events.push_back(EndOf(*sequence, CheckFits(sequence->parameters)));
    Erase(sequence);
  }
  return events;
}

std::optional<BlockManager> Scheduler::StopPipeline(int index) {
  const auto it = lanes_.find(index);
  if (it == lanes_.end()) return std::nullopt;
  Lane* const lane = it->second.get();
  while (!lane->running().empty()) {
    Sequence* sequence = lane->running().begin()->second;
    lane->Release(sequence);
    queue_.Return(sequence);
    sequence->is_interrupted = sequence->n_output() > 0;
  }
  for (const int64_t id : lane->InFlight()) {
    const auto sequence = sequences_.find(id);
    if (sequence == sequences_.end()) continue;
    sequence->second->in_flight_step_id = 0;
    sequence->second->n_in_flight = 0;
  }
  Accumulate(lane->counters(), &counters_of_lost_);
  BlockManager blocks = lane->GiveUpBlocks();
  lanes_.erase(it);
  return blocks;
}

bool Scheduler::HasRoomFor(const SequenceParameters& parameters,
                           int n_samples) {
  return CheckRoom(parameters, n_samples).ok();
}

absl::Status Scheduler::CheckRoom(const SequenceParameters& parameters,
                                  int n_samples) {
  if (n_waiting() + n_samples > options_.max_waiting) {
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
  const int64_t n_before = queue_.PromptTokensWaiting(kLeastUrgent);
  if (n_before == 0) return absl::OkStatus();
  // Samples share their prompt.
  int64_t n_tokens = parameters.prompt.size();
  if (n_before + n_tokens <= options_.max_waiting_tokens) {
    return absl::OkStatus();
  }
  int n_cached = 0;
  for (const auto& [index, lane] : lanes_) {
    n_cached =
        std::max(n_cached, lane->CachedTokens(parameters, parameters.prompt));
  }
  n_tokens -= n_cached;
  if (n_before + n_tokens <= options_.max_waiting_tokens) {
    return absl::OkStatus();
  }
  return absl::ResourceExhaustedError(absl::StrCat(
      "prompts of ", n_before, " tokens wait already and this one has ",
      n_tokens, " that are not cached; this cluster's limit is ",
      options_.max_waiting_tokens, ": try again later"));
}

absl::Duration Scheduler::ExpectedWait(const SequenceParameters& parameters) {
  absl::Duration least = absl::ZeroDuration();
  const Sequence::Level level = {parameters.sequence_class,
                                 -parameters.priority};
  for (const auto& [index, lane] : lanes_) {
    const absl::Duration per_token = lane->cost().LeastPerToken();
    if (per_token == absl::ZeroDuration()) return absl::ZeroDuration();
    const absl::Duration wait =
        per_token *
        (lane->TokensAhead(parameters, parameters.prompt) +
         queue_.PromptTokensWaiting(level) / static_cast<int>(lanes_.size()));
    if (least == absl::ZeroDuration() || wait < least) least = wait;
  }
  return least;
}

absl::Status Scheduler::CheckDeadline(const SequenceParameters& parameters,
                                      absl::Time now) {
  if (parameters.deadline == absl::InfiniteFuture()) return absl::OkStatus();
  const absl::Duration wait = ExpectedWait(parameters);
  if (now + wait < parameters.deadline) return absl::OkStatus();
  return absl::DeadlineExceededError(absl::StrCat(
      "the first token is not to be expected before ",
      absl::FormatDuration(absl::Trunc(wait, absl::Milliseconds(1))),
      " have passed, and the request's deadline is in ",
      absl::FormatDuration(
          absl::Trunc(parameters.deadline - now, absl::Milliseconds(1))),
      ": try again later, or allow more time"));
}

absl::Status Scheduler::Add(int64_t first_id, SequenceParameters parameters,
                            int n_samples, absl::Time now) {
  CHECK(n_samples > 0);
  RETURN_IF_ERROR(CheckRoom(parameters, n_samples));
  if (has_pipeline()) {
    RETURN_IF_ERROR(CheckFits(parameters));
    RETURN_IF_ERROR(CheckDeadline(parameters, now));
  }
  for (int i = 0; i < n_samples; ++i) {
    const int64_t id = first_id + i;
    CHECK(!sequences_.contains(id));
    parameters.sampler.sample_index = i;
    if (i > 0) parameters.sampler.prompt_logprobs = -1;
    Enter(std::make_unique<Sequence>(id, parameters));
  }
  return absl::OkStatus();
}

void Scheduler::Restore(int64_t id, SequenceParameters parameters,
                        int sample_index, const std::vector<int32_t>& output,
                        int n_scored) {
  CHECK(!sequences_.contains(id));
  parameters.sampler.sample_index = sample_index;
  if (sample_index > 0) parameters.sampler.prompt_logprobs = -1;
  auto sequence = std::make_unique<Sequence>(id, std::move(parameters));
  for (const int32_t token : output) CHECK(!sequence->Append(token).ended);
  sequence->n_scored = std::max(sequence->n_scored, n_scored);
  Enter(std::move(sequence));
}

void Scheduler::Enter(std::unique_ptr<Sequence> sequence) {
  queue_.Enter(sequence.get());
  const int64_t id = sequence->id;
  if (sequence->parameters.deadline < absl::InfiniteFuture()) {
    deadlines_.insert({sequence->parameters.deadline, id});
  }
  sequences_[id] = std::move(sequence);
}

absl::Status Scheduler::CheckFits(const SequenceParameters& parameters) const {
  const int64_t n_prompt = parameters.prompt.size();
  const int64_t n_positions = n_prompt + parameters.max_output_tokens - 1;
  int64_t n_largest = 0;
  for (const auto& [index, lane] : lanes_) {
    const BlockManager& blocks = lane->blocks();
    n_largest = std::max(n_largest, static_cast<int64_t>(blocks.n_blocks()) *
                                        blocks.block_size());
  }
  if (n_positions <= n_largest) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat(
      "prompt of ", n_prompt, " tokens and max_output_tokens ",
      parameters.max_output_tokens, " need ", n_positions,
      " positions of KV cache; the largest pipeline has ", n_largest,
      ": shorten one of them, or give the workers more memory"));
}

bool Scheduler::FitsAny(const Sequence& sequence) const {
  return std::any_of(lanes_.begin(), lanes_.end(), [&](const auto& lane) {
    return lane.second->CanHold(sequence.n_positions_max());
  });
}

std::optional<StepPlan> Scheduler::Schedule(int index) {
  Lane* const lane = lanes_.at(index).get();
  if (!lane->CanSchedule()) return std::nullopt;
  AdmitWaiting();
  return lane->Schedule();
}

void Scheduler::AdmitWaiting() {
  while (Sequence* next = queue_.Next()) {
    if (!FitsAny(*next)) {
      queue_.Leave(next);
      unplaceable_.insert(next->id);
      continue;
    }
    Lane* lane = LaneFor(*next);
    if (lane == nullptr) lane = MakeRoom(*next);
    if (lane == nullptr) return;
    lane->Take(next);
  }
}

Lane* Scheduler::LaneFor(const Sequence& sequence) {
  Lane* best = nullptr;
  int64_t least = 0;
  for (const auto& [index, lane] : lanes_) {
    if (lane->is_closed() || !lane->CanHold(sequence.n_positions_max()) ||
        !lane->HasRoomFor(sequence)) {
      continue;
    }
    const int64_t n_ahead =
        lane->TokensAhead(sequence.parameters, sequence.tokens);
    if (best != nullptr && n_ahead >= least) continue;
    best = lane.get();
    least = n_ahead;
  }
  return best;
}

Lane* Scheduler::MakeRoom(const Sequence& sequence) {
  for (const auto& [index, lane] : lanes_) {
    if (lane->is_closed() || !lane->CanHold(sequence.n_positions_max())) {
      continue;
    }
    while (Sequence* victim = WhoMakesRoom(sequence, *lane)) {
      lane->Preempt(victim);
      if (lane->HasRoomFor(sequence)) return lane.get();
    }
  }
  return nullptr;
}

// The least urgent, if it is less urgent than `sequence`; else the latest of
// those that fairness lets it replace.
Sequence* Scheduler::WhoMakesRoom(const Sequence& sequence,
                                  const Lane& lane) const {
  if (lane.running().empty()) return nullptr;
  Sequence* last = lane.running().rbegin()->second;
  if (last->level() > sequence.level()) return last;
  Sequence* victim = nullptr;
  for (auto it = lane.running().rbegin(); it != lane.running().rend(); ++it) {
    if (it->second->level() != sequence.level()) break;
    if (!queue_.MayReplace(sequence, *it->second)) continue;
    if (victim == nullptr ||
        queue_.RunningOf(*it->second) > queue_.RunningOf(*victim)) {
      victim = it->second;
    }
  }
  return victim;
}

absl::Status Scheduler::Complete(int index, const StepResult& result,
                                 std::vector<SequenceEvent>* events) {
  std::vector<Lane::InFlightRow> rows;
  Lane* const lane = lanes_.at(index).get();
  RETURN_IF_ERROR(lane->TakeAnswered(result, &rows));
  size_t i = 0, n_scored = 0;
  for (const Lane::InFlightRow& row : rows) {
    const size_t first = i;
    i += row.n_sampled;
    const ScoredRow* scored =
        row.n_scored == 0 ? nullptr : &result.scored[n_scored++];
    const auto it = sequences_.find(row.id);
    if (it == sequences_.end()) continue;  // It ended while the step ran.
    Sequence* sequence = it->second.get();
    CHECK(sequence->n_in_flight > 0);
    if (--sequence->n_in_flight == 0) {
      CHECK(sequence->in_flight_step_id == result.step_id);
      sequence->in_flight_step_id = 0;
    }
    if (scored != nullptr && !TakeScores(*scored, sequence, events)) continue;
    bool ended = false;
    // What comes behind the end is overshoot.
    for (size_t k = first; k < i && !ended; ++k) {
      ended =
          TakeToken(result.sampled[k], row.wants_logprobs, sequence, events);
    }
    if (ended) {
      Erase(sequence);
    } else if (!row.drafts.empty()) {
      lane->TakeDrafts(row, sequence);
    }
  }
  return absl::OkStatus();
}

// Whether it ended the sequence.
bool Scheduler::TakeToken(const SampledToken& sampled, bool wants_logprobs,
                          Sequence* sequence,
                          std::vector<SequenceEvent>* events) {
  SequenceEvent event;
  event.id = sequence->id;
  event.n_prompt_cached = sequence->n_prompt_cached;
  if (!sampled.status.ok()) {
    event.ended = true;
    event.status = sampled.status;
  } else {
    const Sequence::Ending ending = sequence->Append(sampled.token_id);
    sequence->is_interrupted = false;
    event.token = sampled.token_id;
    if (wants_logprobs) event.logprobs = sampled.logprobs;
    event.ended = ending.ended;
    event.reason = ending.reason;
    event.stop_token_id = ending.stop_token_id;
  }
  const bool ended = event.ended;
  events->push_back(std::move(event));
  return ended;
}

// False when the sequence has failed and is gone.
bool Scheduler::TakeScores(const ScoredRow& scored, Sequence* sequence,
                           std::vector<SequenceEvent>* events) {
  if (!scored.status.ok()) {
    events->push_back(EndOf(*sequence, scored.status));
    Erase(sequence);
    return false;
  }
  sequence->n_scored = scored.position + static_cast<int>(scored.tokens.size());
  SequenceEvent event;
  event.id = sequence->id;
  event.prompt_logprobs = scored.tokens;
  events->push_back(std::move(event));
  return true;
}

bool Scheduler::Abort(int64_t id) {
  const auto it = sequences_.find(id);
  if (it == sequences_.end()) return false;
  Erase(it->second.get());
  return true;
}

std::vector<SequenceEvent> Scheduler::ExpireDeadlines(absl::Time now) {
  std::vector<SequenceEvent> events;
  while (!deadlines_.empty() && deadlines_.begin()->first <= now) {
    Sequence* sequence = sequences_.at(deadlines_.begin()->second).get();
    events.push_back(
        EndOf(*sequence, absl::DeadlineExceededError(absl::StrCat(
                             "the request's deadline passed after ",
                             sequence->n_output(), " output tokens"))));
    Erase(sequence);
  }
  return events;
}

absl::Time Scheduler::next_deadline() const {
  return deadlines_.empty() ? absl::InfiniteFuture()
                            : deadlines_.begin()->first;
}

std::vector<SequenceEvent> Scheduler::EndUnplaceable() {
  std::vector<SequenceEvent> events;
  while (!unplaceable_.empty()) {
    Sequence* sequence = sequences_.at(*unplaceable_.begin()).get();
    absl::Status status = CheckFits(sequence->parameters);
    events.push_back(
        EndOf(*sequence, absl::UnavailableError(absl::StrCat(
                             "the pipeline that held the request is lost: ",
                             status.message()))));
    Erase(sequence);
  }
  return events;
}

const Sequence* Scheduler::Find(int64_t id) const {
  const auto it = sequences_.find(id);
  return it == sequences_.end() ? nullptr : it->second.get();
}

const Lane* Scheduler::lane(int index) const {
  const auto it = lanes_.find(index);
  return it == lanes_.end() ? nullptr : it->second.get();
}

Lane::Counters Scheduler::counters() const {
  Lane::Counters all = counters_of_lost_;
  for (const auto& [index, lane] : lanes_) Accumulate(lane->counters(), &all);
  return all;
}

void Scheduler::Erase(Sequence* sequence) {
  if (unplaceable_.erase(sequence->id) == 0) {
    queue_.Leave(sequence);
    if (sequence->pipeline >= 0) {
      lanes_.at(sequence->pipeline)->Release(sequence);
    }
  }
  deadlines_.erase({sequence->parameters.deadline, sequence->id});
  sequences_.erase(sequence->id);
}

}  // namespace tern
