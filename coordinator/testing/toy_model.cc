#include "coordinator/testing/toy_model.h"

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
  return static_cast<int32_t>(hash % static_cast<uint64_t>(vocab_size));
}

std::vector<int32_t> ToyAnswer(std::vector<int32_t> prompt, uint64_t seed,
                               int n, int vocab_size) {
  const size_t n_prompt = prompt.size();
  for (int i = 0; i < n; ++i) {
    prompt.push_back(ToyNextToken(prompt, seed, vocab_size));
  }
  return std::vector<int32_t>(prompt.begin() + n_prompt, prompt.end());
}

ToyWorker::ToyWorker(int n_blocks, int block_size, int max_step_tokens,
                     int vocab_size)
    : n_blocks_(n_blocks),
      block_size_(block_size),
      max_step_tokens_(max_step_tokens),
      vocab_size_(vocab_size) {}

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
    for (int id : it->second.block_ids) block_owner_.erase(id);
    sequences_.erase(it);
  }
  for (const SequenceSetup& setup : plan.new_sequences) {
    if (!run_ids_seen_.insert(setup.run_id).second) {
      return error("opens ", setup.run_id, " again");
    }
    sequences_[setup.run_id].seed = setup.sampler.seed;
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
    if (row.tokens.empty()) return error("empty row of ", row.run_id);
    if (row.position != static_cast<int>(state.history.size())) {
      return error("row of ", row.run_id, " at ", row.position, " instead of ",
                   state.history.size());
    }
    n_tokens += row.tokens.size();
    state.history.insert(state.history.end(), row.tokens.begin(),
                         row.tokens.end());
    for (int id : row.new_block_ids) {
      if (id < 0 || id >= n_blocks_) return error("no block ", id);
      if (!block_owner_.insert({id, row.run_id}).second) {
        return error("block ", id, " of ", block_owner_[id], " given to ",
                     row.run_id);
      }
      state.block_ids.push_back(id);
    }
    const size_t n_blocks_needed =
        (state.history.size() + block_size_ - 1) / block_size_;
    if (state.block_ids.size() != n_blocks_needed) {
      return error("sequence ", row.run_id, " has ", state.block_ids.size(),
                   " blocks for ", state.history.size(), " positions");
    }
    if (row.samples) {
      SampledToken sampled;
      sampled.run_id = row.run_id;
      sampled.position = static_cast<int>(state.history.size());
      sampled.token_id = ToyNextToken(state.history, state.seed, vocab_size_);
      result->sampled.push_back(std::move(sampled));
    }
  }
  if (n_tokens > static_cast<size_t>(max_step_tokens_)) {
    return error(n_tokens, " tokens exceed ", max_step_tokens_);
  }
  return absl::OkStatus();
}

}  // namespace tern
