#include "coordinator/block_manager.h"

#include <algorithm>
#include <set>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "util/logging.h"

namespace tern {

BlockManager::BlockManager(int n_blocks, int block_size)
    : block_size_(block_size) {
  CHECK(n_blocks >= 0);
  CHECK(block_size > 0);
  blocks_.resize(n_blocks);
  tokens_.resize(static_cast<size_t>(n_blocks) * block_size);
  empty_.reserve(n_blocks);
  for (int id = n_blocks - 1; id >= 0; --id) empty_.push_back(id);
}

int BlockManager::Allocate() {
  int id;
  if (!empty_.empty()) {
    id = empty_.back();
    empty_.pop_back();
  } else {
    CHECK(oldest_ >= 0) << "no free KV block";
    id = oldest_;
    RemoveFromCached(id);
    Forget(id);
  }
  CHECK(blocks_[id].reference_count == 0) << "block " << id << " was not free";
  blocks_[id].reference_count = 1;
  return id;
}

void BlockManager::AddReference(int block_id) {
  CHECK(block_id >= 0 && block_id < n_blocks());
  Block& block = blocks_[block_id];
  if (block.reference_count == 0) {
    CHECK(block.prefix != 0) << "block " << block_id << " is empty";
    RemoveFromCached(block_id);
  }
  ++block.reference_count;
}

void BlockManager::Release(absl::Span<const int> block_ids) {
  for (size_t i = block_ids.size(); i-- > 0;) {
    const int id = block_ids[i];
    CHECK(id >= 0 && id < n_blocks());
    Block& block = blocks_[id];
    CHECK(block.reference_count > 0) << "block " << id << " is free already";
    if (--block.reference_count > 0) continue;
    if (block.prefix != 0) {
      AddToCached(id);
    } else {
      empty_.push_back(id);
    }
  }
}

BlockManager::PrefixId BlockManager::Root(absl::string_view salt) {
  const auto [it, is_new] = roots_.try_emplace(std::string(salt));
  if (is_new) it->second = ++last_prefix_;
  return it->second;
}

std::optional<BlockManager::Known> BlockManager::Find(
    PrefixId prefix, absl::Span<const int32_t> tokens) const {
  const auto it = known_.find(Content{prefix, tokens});
  if (it == known_.end()) return std::nullopt;
  const Block& block = blocks_[it->second];
  return Known{it->second, block.prefix, block.filled_in, block.lost_by};
}

BlockManager::PrefixId BlockManager::Publish(int block_id, PrefixId prefix,
                                             absl::Span<const int32_t> tokens,
                                             int64_t step_id) {
  CHECK(static_cast<int>(tokens.size()) == block_size_);
  Block& block = blocks_[block_id];
  CHECK(block.reference_count > 0 && block.prefix == 0);
  const std::optional<Known> same = Find(prefix, tokens);
  if (same.has_value()) return same->prefix;
  std::copy(tokens.begin(), tokens.end(),
            tokens_.begin() + static_cast<size_t>(block_id) * block_size_);
  block.parent = prefix;
  block.prefix = ++last_prefix_;
  block.filled_in = step_id;
  block.lost_by = {};
  known_.emplace(ContentOf(block_id), block_id);
  return block.prefix;
}

absl::StatusOr<BlockManager> BlockManager::FromState(const State& state) {
  const auto damaged = [](const auto&... what) {
    return absl::DataLossError(absl::StrCat("KV blocks: ", what...));
  };
  if (state.n_blocks < 0 || state.block_size < 1) {
    return damaged(state.n_blocks, " of ", state.block_size, " tokens");
  }
  BlockManager blocks(state.n_blocks, state.block_size);
  std::set<PrefixId> prefixes;
  const auto add_prefix = [&](PrefixId prefix) {
    blocks.last_prefix_ = std::max(blocks.last_prefix_, prefix);
    return prefix > 0 && prefixes.insert(prefix).second;
  };
  for (const auto& [salt, prefix] : state.roots) {
    if (!add_prefix(prefix)) return damaged("two texts of one name");
    blocks.roots_[salt] = prefix;
  }
  std::vector<bool> is_known(state.n_blocks);
  for (const KnownBlock& known : state.known) {
    const int id = known.block_id;
    if (id < 0 || id >= state.n_blocks || is_known[id]) {
      return damaged("block ", id, " of ", state.n_blocks, ", or twice");
    }
    if (static_cast<int>(known.tokens.size()) != state.block_size) {
      return damaged("block ", id, " of ", known.tokens.size(), " tokens");
    }
    if (known.lost_by.begin < 0 || known.lost_by.end < known.lost_by.begin) {
      return damaged("block ", id, " that no stages have lost");
    }
    if (!add_prefix(known.prefix)) return damaged("two texts of one name");
    is_known[id] = true;
    std::copy(
        known.tokens.begin(), known.tokens.end(),
        blocks.tokens_.begin() + static_cast<size_t>(id) * state.block_size);
    Block& block = blocks.blocks_[id];
    block.parent = known.parent;
    block.prefix = known.prefix;
    block.lost_by = known.lost_by;
    if (!blocks.known_.emplace(blocks.ContentOf(id), id).second) {
      return damaged("block ", id, " holds what another one holds");
    }
    blocks.AddToCached(id);
  }
  blocks.empty_.erase(std::remove_if(blocks.empty_.begin(), blocks.empty_.end(),
                                     [&](int id) { return is_known[id]; }),
                      blocks.empty_.end());
  return blocks;
}

BlockManager::State BlockManager::ToState() const {
  CHECK(n_in_use() == 0);
  State state;
  state.n_blocks = n_blocks();
  state.block_size = block_size_;
  state.roots.insert(roots_.begin(), roots_.end());
  for (int id = oldest_; id >= 0; id = blocks_[id].newer) {
    const Block& block = blocks_[id];
    const absl::Span<const int32_t> tokens = ContentOf(id).tokens;
    state.known.push_back({id,
                           block.parent,
                           block.prefix,
                           {tokens.begin(), tokens.end()},
                           block.lost_by});
  }
  return state;
}

void BlockManager::StartAnew(int64_t last_step_id) {
  CHECK(n_in_use() == 0);
  for (int id = 0; id < n_blocks(); ++id) {
    Block& block = blocks_[id];
    if (block.prefix == 0) continue;
    if (block.filled_in > last_step_id) {
      RemoveFromCached(id);
      Forget(id);
      empty_.push_back(id);
    }
    block.filled_in = 0;
  }
}

void BlockManager::Lose(StageSpan stages) {
  CHECK(!stages.empty());
  for (Block& block : blocks_) {
    if (block.prefix == 0) continue;
    if (block.lost_by.empty()) {
      block.lost_by = stages;
    } else {
      block.lost_by = {std::min(block.lost_by.begin, stages.begin),
                       std::max(block.lost_by.end, stages.end)};
    }
  }
}

void BlockManager::Refill(int block_id, int64_t step_id) {
  Block& block = blocks_[block_id];
  CHECK(block.prefix != 0 && !block.lost_by.empty());
  block.lost_by = {};
  block.filled_in = step_id;
}

BlockManager::Content BlockManager::ContentOf(int block_id) const {
  return {blocks_[block_id].parent,
          absl::MakeConstSpan(tokens_).subspan(
              static_cast<size_t>(block_id) * block_size_, block_size_)};
}

void BlockManager::Forget(int block_id) {
  known_.erase(ContentOf(block_id));
  blocks_[block_id].prefix = 0;
}

void BlockManager::AddToCached(int block_id) {
  Block& block = blocks_[block_id];
  block.older = newest_;
  block.newer = -1;
  (newest_ >= 0 ? blocks_[newest_].newer : oldest_) = block_id;
  newest_ = block_id;
  ++n_cached_;
}

void BlockManager::RemoveFromCached(int block_id) {
  Block& block = blocks_[block_id];
  (block.older >= 0 ? blocks_[block.older].newer : oldest_) = block.newer;
  (block.newer >= 0 ? blocks_[block.newer].older : newest_) = block.older;
  --n_cached_;
}

}  // namespace tern
