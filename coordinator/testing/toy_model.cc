#include "coordinator/testing/toy_model.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"

namespace tern {

int32_t ToyNextToken(absl::Span<const int32_t> history, uint64_t seed,
                     int vocab_size) {
  uint64_t hash = 0xcbf29ce484222325u ^ seed;
  for (int32_t token : history) {
    hash = (hash ^ static_cast<uint32_t>(token)) * 0x100000001b3u;
    hash ^= hash >> 29;
  }
  const uint64_t n_tokens = seed % 2 == 0 ? 3 : vocab_size;
  return static_cast<int32_t>(hash % n_tokens);
}

std::vector<int32_t> ToyAnswer(std::vector<int32_t> prompt, uint64_t seed,
                               int n, int vocab_size) {
  const size_t n_prompt = prompt.size();
  for (int i = 0; i < n; ++i) {
    prompt.push_back(ToyNextToken(prompt, seed, vocab_size));
  }
  return std::vector<int32_t>(prompt.begin() + n_prompt, prompt.end());
}

float ToyLogprob(absl::Span<const int32_t> history, int32_t token) {
  return -static_cast<float>(ToyNextToken(history, token, 1 << 20));
}

std::vector<float> ToyScores(absl::Span<const int32_t> prompt) {
  std::vector<float> scores;
  for (size_t i = 1; i < prompt.size(); ++i) {
    scores.push_back(ToyLogprob(prompt.first(i), prompt[i]));
  }
  return scores;
}

ToyWorker::ToyWorker(int n_blocks, int block_size, int max_step_tokens,
                     int vocab_size, int stage)
    : block_size_(block_size),
      max_step_tokens_(max_step_tokens),
      vocab_size_(vocab_size),
      stage_(stage),
      blocks_(n_blocks) {}

void ToyWorker::StartAnew() {
  last_step_id_ = 0;
  sequences_.clear();
  run_ids_seen_.clear();
  for (Block& block : blocks_) block.n_users = 0;
  n_blocks_in_use_ = 0;
}

// That a row for some stages alone does nothing but fill blocks.
absl::Status ToyWorker::CheckRefill(const StepRow& row) const {
  const StageSpan& stages = row.computing_stages;
  const size_t n_filled = row.new_block_ids.size() - row.n_taken_over_blocks;
  if (stages.begin >= 0 && stages.begin < stages.end && !row.samples &&
      row.n_drafts == 0 && row.scored_tokens.empty() &&
      row.position % block_size_ == 0 &&
      row.tokens.size() == n_filled * block_size_) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "row of ", row.run_id, " for some stages does more than to fill blocks"));
}

// Of the row's blocks the first `n_blocks` are full of the text that the
// sequence has, and goes on with.
absl::Status ToyWorker::TakeOver(const StepRow& row, int n_blocks,
                                 State* state) {
  const auto error = [&row](const auto&... what) {
    return absl::InvalidArgumentError(
        absl::StrCat("row of ", row.run_id, ": ", what...));
  };
  if (row.n_taken_over_blocks > static_cast<int>(row.new_block_ids.size())) {
    return error("takes over more blocks than it names");
  }
  const size_t n_before = state->history.size();
  for (int i = 0; i < n_blocks; ++i) {
    const int id = row.new_block_ids[i];
    if (id < 0 || id >= static_cast<int>(blocks_.size())) {
      return error("no block ", id);
    }
    const std::vector<int32_t>& text = blocks_[id].text;
    if (text.size() != state->history.size() + block_size_ ||
        !std::equal(state->history.begin(), state->history.end(),
                    text.begin())) {
      return error("block ", id, " does not continue its text");
    }
    state->history = text;
    n_taken_over_ += block_size_;
  }
  if (!row.taken_over_tokens.empty() &&
      row.taken_over_tokens !=
          std::vector<int32_t>(
              state->history.begin() + n_before,
              state->history.begin() + n_before +
                  size_t{1} * row.n_taken_over_blocks * block_size_)) {
    return error("tells other tokens than it takes over");
  }
  return absl::OkStatus();
}

// The next row begins at `position`: guesses from there on were wrong, or of no
// interest.
void ToyWorker::DropDrafts(int position, State* state) {
  const int n = static_cast<int>(state->history.size());
  if (position >= n || position < n - state->n_drafts) return;
  state->history.resize(position);
  for (size_t i = position / block_size_; i < state->block_ids.size(); ++i) {
    blocks_[state->block_ids[i]].text.clear();
  }
}

void ToyWorker::Sample(const StepRow& row, int64_t step_id, State* state,
                       StepResult* result) {
  std::vector<int32_t> history = state->history;
  history.resize(history.size() - row.n_drafts);
  for (int i = 0; i <= row.n_drafts; ++i) {
    SampledToken sampled;
    sampled.run_id = row.run_id;
    sampled.position = static_cast<int>(history.size());
    sampled.token_id = ToyNextToken(history, state->seed, vocab_size_);
    const int32_t token = sampled.token_id;
    state->sampled[step_id] = token;
    result->sampled.push_back(std::move(sampled));
    if (i == row.n_drafts || token != state->history[history.size()]) return;
    history.push_back(token);
    ++n_drafts_true_;
  }
}

// Of a row of `n_tokens` tokens that are in the history now.
absl::Status ToyWorker::Score(const StepRow& row, int n_tokens,
                              const State& state, ScoredRow* scored) {
  const int n_scored = static_cast<int>(row.scored_tokens.size());
  if (n_scored > n_tokens - (row.samples ? 1 : 0) || row.n_drafts > 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "row of ", row.run_id, ": scores other tokens than follow it"));
  }
  const absl::Span<const int32_t> history = state.history;
  const int n_history = static_cast<int>(history.size());
  scored->run_id = row.run_id;
  scored->position = n_history + (row.samples ? 0 : 1) - n_scored;
  for (int i = 0; i < n_scored; ++i) {
    const int position = scored->position + i;
    const int32_t token = row.scored_tokens[i];
    if (position < n_history && history[position] != token) {
      return absl::InvalidArgumentError(absl::StrCat(
          "row of ", row.run_id, ": scores token ", token, " at ", position));
    }
    TokenLogprobs& logprobs = scored->tokens.emplace_back();
    logprobs.logprob = ToyLogprob(history.first(position), token);
    logprobs.alternatives.resize(state.prompt_logprobs);
  }
  return absl::OkStatus();
}

absl::Status ToyWorker::Run(const StepPlan& plan, StepResult* result) {
  const auto error = [&plan](const auto&... what) {
    return absl::InvalidArgumentError(
        absl::StrCat("step ", plan.step_id, ": ", what...));
  };
  if (plan.step_id != last_step_id_ + 1) {
    return error("comes after step ", last_step_id_);
  }
  last_step_id_ = plan.step_id;
  for (int64_t run_id : plan.released_run_ids) {
    auto it = sequences_.find(run_id);
    if (it == sequences_.end()) return error("releases unknown ", run_id);
    for (int id : it->second.block_ids) {
      if (--blocks_[id].n_users == 0) --n_blocks_in_use_;
    }
    sequences_.erase(it);
  }
  for (const SequenceSetup& setup : plan.new_sequences) {
    if (!run_ids_seen_.insert(setup.run_id).second) {
      return error("opens ", setup.run_id, " again");
    }
    State& state = sequences_[setup.run_id];
    state.seed = setup.sampler.seed;
    state.prompt_logprobs = std::max(0, setup.sampler.prompt_logprobs);
  }
  std::set<int64_t> rows;
  size_t n_tokens = 0;
  *result = StepResult();
  result->step_id = plan.step_id;
  for (const StepRow& row : plan.rows) {
    auto it = sequences_.find(row.run_id);
    if (it == sequences_.end()) return error("row of unknown ", row.run_id);
    State& state = it->second;
    if (!rows.insert(row.run_id).second) {
      return error("two rows of ", row.run_id);
    }
    std::vector<int32_t> tokens = row.tokens;
    if (row.sampled_in_step_id > 0) {
      const auto sampled = state.sampled.find(row.sampled_in_step_id);
      if (!tokens.empty() || sampled == state.sampled.end() ||
          sampled != std::prev(state.sampled.end())) {
        return error("row of ", row.run_id, " takes its token from step ",
                     row.sampled_in_step_id);
      }
      tokens = {sampled->second};
    }
    if (tokens.empty()) return error("empty row of ", row.run_id);
    if (row.n_drafts < 0 || row.n_drafts >= static_cast<int>(tokens.size()) ||
        (row.n_drafts > 0 && !row.samples)) {
      return error("row of ", row.run_id, " with ", row.n_drafts, " guesses");
    }
    DropDrafts(row.position, &state);
    state.n_drafts = row.n_drafts;
    n_drafts_ += row.n_drafts;
    const StageSpan& stages = row.computing_stages;
    if (!stages.empty()) {
      const absl::Status refill = CheckRefill(row);
      if (!refill.ok()) return error(refill.message());
    }
    const bool computes =
        stages.empty() || (stage_ >= stages.begin && stage_ < stages.end);
    const int n_full = computes ? row.n_taken_over_blocks
                                : static_cast<int>(row.new_block_ids.size());
    const absl::Status taken = TakeOver(row, n_full, &state);
    if (!taken.ok()) return error(taken.message());
    // To those that do not compute it the row is in the blocks taken over.
    const size_t end_before = row.position + (computes ? 0 : row.tokens.size());
    if (end_before != state.history.size()) {
      return error("row of ", row.run_id, " at ", row.position, " instead of ",
                   state.history.size());
    }
    n_tokens += tokens.size();
    if (computes) {
      n_computed_ += tokens.size();
      state.history.insert(state.history.end(), tokens.begin(), tokens.end());
    } else if (!std::equal(tokens.begin(), tokens.end(),
                           state.history.begin() + row.position)) {
      return error("row of ", row.run_id, " has other tokens than its blocks");
    }
    for (size_t i = 0; i < row.new_block_ids.size(); ++i) {
      const int id = row.new_block_ids[i];
      if (id < 0 || id >= static_cast<int>(blocks_.size())) {
        return error("no block ", id);
      }
      const bool fresh = static_cast<int>(i) >= n_full;
      if (fresh && blocks_[id].n_users > 0) {
        return error("block ", id, " is in use and given to ", row.run_id);
      }
      if (fresh) blocks_[id].text.clear();
      if (blocks_[id].n_users++ == 0) ++n_blocks_in_use_;
      state.block_ids.push_back(id);
    }
    for (size_t end = block_size_; end <= state.history.size();
         end += block_size_) {
      if (end <= static_cast<size_t>(row.position)) continue;
      const size_t i = end / block_size_ - 1;
      if (i >= state.block_ids.size()) break;
      blocks_[state.block_ids[i]].text.assign(state.history.begin(),
                                              state.history.begin() + end);
    }
    state.n_positions_ever =
        std::max(state.n_positions_ever, state.history.size());
    const size_t n_blocks_needed =
        (state.n_positions_ever + block_size_ - 1) / block_size_;
    if (state.block_ids.size() != n_blocks_needed) {
      return error("sequence ", row.run_id, " has ", state.block_ids.size(),
                   " blocks for ", state.n_positions_ever, " positions");
    }
    if (!row.scored_tokens.empty()) {
      const absl::Status scored = Score(row, static_cast<int>(tokens.size()),
                                        state, &result->scored.emplace_back());
      if (!scored.ok()) return error(scored.message());
    }
    if (row.samples) Sample(row, plan.step_id, &state, result);
  }
  if (n_tokens > static_cast<size_t>(max_step_tokens_)) {
    return error(n_tokens, " tokens exceed ", max_step_tokens_);
  }
  return absl::OkStatus();
}

}  // namespace tern
