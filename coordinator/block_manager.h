#ifndef COORDINATOR_BLOCK_MANAGER_H_
#define COORDINATOR_BLOCK_MANAGER_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "coordinator/step_plan.h"

namespace tern {

// Hands out the KV blocks of one pipeline, and remembers what full ones hold,
// so that prompts that begin alike share them. A block id means the same block
// on every stage, each of which holds its own layers' part of it.
//
// A block is in use (by one sequence or by several that share it), cached (by
// nobody, but still of known content), or empty. Cached blocks are given out
// again when no empty ones are left, the one least recently used first; a
// sequence's last block counts as older than those before it, so that a text is
// forgotten from its end.
//
// What a block holds depends on all tokens before it as well. So a known block
// is named by the tokens it holds and by the prefix that they follow: both are
// compared in full, and equal hashes of unequal texts do no harm.
//
// Pure bookkeeping, deterministic. Not thread-safe: owned by the engine thread.
class BlockManager {
 public:
  // Names a text that ends with a block's last token (or is empty). Never used
  // twice.
  using PrefixId = int64_t;

  // A block whose content is known.
  struct Known {
    int block_id;
    PrefixId prefix;    // its own text: all tokens up to its last one
    int64_t filled_in;  // step that computes it, as told to Publish()
    StageSpan lost_by;  // stages that have to compute it again first
  };

  // What known blocks hold, as plain values: for a manager in another process.
  struct KnownBlock {
    int block_id = 0;
    PrefixId parent = 0;  // the text before it, of a root or of another block
    PrefixId prefix = 0;
    std::vector<int32_t> tokens;  // [block_size]
    StageSpan lost_by;
  };
  struct State {
    int n_blocks = 0;
    int block_size = 0;
    std::map<std::string, PrefixId> roots;  // by salt
    std::vector<KnownBlock> known;          // the one least recently used first
  };

  // REQUIRES: n_blocks >= 0, block_size > 0 (tokens per block).
  BlockManager(int n_blocks, int block_size);

  // With no block in use. DATA_LOSS for a state that no manager can have.
  static absl::StatusOr<BlockManager> FromState(const State& state);

  // REQUIRES: no block is in use, and StartAnew() was called since one was.
  State ToState() const;

  // Blocks that `n_tokens` tokens take.
  int BlocksFor(int n_tokens) const {
    return (n_tokens + block_size_ - 1) / block_size_;
  }

  // Takes a block that nobody uses; its reference count is 1 and its content is
  // forgotten.
  // REQUIRES: n_free() > 0.
  int Allocate();

  // One more sequence uses the block.
  // REQUIRES: the block is in use or cached.
  void AddReference(int block_id);

  // One user less for each block, in reverse order; with its last user a block
  // is cached or empty.
  // REQUIRES: each block is in use.
  void Release(absl::Span<const int> block_ids);

  // The empty text. Texts of different salts never share a block.
  PrefixId Root(absl::string_view salt);

  // The block that holds `tokens` after the text `prefix`, if there is one.
  // tokens: [block_size].
  std::optional<Known> Find(PrefixId prefix,
                            absl::Span<const int32_t> tokens) const;

  // Makes known what a block in use holds, or will hold when `step_id` has run.
  // Returns the name of the text that ends with it. When another block of that
  // content is known already, this one stays unknown.
  // REQUIRES: not published since it was allocated.
  PrefixId Publish(int block_id, PrefixId prefix,
                   absl::Span<const int32_t> tokens, int64_t step_id);

  // The pipeline is formed anew, and its steps count from 1 again. What steps
  // up to `last_step_id` were to compute stays known, the rest is forgotten.
  // REQUIRES: no block is in use.
  void StartAnew(int64_t last_step_id);

  // These stages have lost what every known block holds. Where others had lost
  // it before, all from the first to the last of both have.
  void Lose(StageSpan stages);

  // Step `step_id` computes again what some stages have lost of a block.
  void Refill(int block_id, int64_t step_id);

  int n_blocks() const { return static_cast<int>(blocks_.size()); }
  // Blocks that Allocate() can give out: empty and cached ones.
  int n_free() const { return static_cast<int>(empty_.size()) + n_cached_; }
  int n_in_use() const { return n_blocks() - n_free(); }
  int n_cached() const { return n_cached_; }
  bool IsInUse(int block_id) const {
    return blocks_[block_id].reference_count > 0;
  }
  int block_size() const { return block_size_; }

 private:
  struct Block {
    int reference_count = 0;
    PrefixId parent = 0;
    PrefixId prefix = 0;  // 0 while the content is not known
    int64_t filled_in = 0;
    StageSpan lost_by;
    // Neighbours in the list of cached blocks.
    int older = -1;
    int newer = -1;
  };

  // What a block holds. `tokens` lie in tokens_, or with whoever asks.
  struct Content {
    PrefixId parent;
    absl::Span<const int32_t> tokens;

    friend bool operator==(const Content& a, const Content& b) {
      return a.parent == b.parent && a.tokens == b.tokens;
    }
    template <typename H>
    friend H AbslHashValue(H h, const Content& c) {
      return H::combine_contiguous(H::combine(std::move(h), c.parent),
                                   c.tokens.data(), c.tokens.size());
    }
  };

  Content ContentOf(int block_id) const;
  void Forget(int block_id);
  void AddToCached(int block_id);
  void RemoveFromCached(int block_id);

  int block_size_;
  std::vector<Block> blocks_;    // by block id
  std::vector<int32_t> tokens_;  // [n_blocks, block_size]; of known blocks
  std::vector<int> empty_;       // a stack
  absl::flat_hash_map<Content, int> known_;
  absl::flat_hash_map<std::string, PrefixId> roots_;
  PrefixId last_prefix_ = 0;
  int oldest_ = -1;  // ends of the list of cached blocks
  int newest_ = -1;
  int n_cached_ = 0;
};

}  // namespace tern

#endif  // COORDINATOR_BLOCK_MANAGER_H_
