#ifndef COORDINATOR_BLOCK_MANAGER_H_
#define COORDINATOR_BLOCK_MANAGER_H_

#include <vector>

#include "absl/types/span.h"

namespace tern {

// Hands out the KV blocks of one pipeline. A block id means the same block on
// every stage, each of which holds its own layers' part of it.
//
// Pure bookkeeping, deterministic: the id freed last is given out first.
// Not thread-safe: owned by the engine thread.
class BlockManager {
 public:
  // REQUIRES: n_blocks >= 0, block_size > 0 (tokens per block).
  BlockManager(int n_blocks, int block_size);

  // Blocks that `n_tokens` tokens take.
  int BlocksFor(int n_tokens) const {
    return (n_tokens + block_size_ - 1) / block_size_;
  }

  // Takes a free block; its reference count is 1.
  // REQUIRES: n_free() > 0.
  int Allocate();

  // One more sequence uses the block.
  // REQUIRES: the block is in use.
  void AddReference(int block_id);

  // One user less for each block, in reverse order; a block is free again with
  // its last user.
  // REQUIRES: each block is in use.
  void Release(absl::Span<const int> block_ids);

  int n_blocks() const { return static_cast<int>(reference_counts_.size()); }
  int n_free() const { return static_cast<int>(free_.size()); }
  int n_in_use() const { return n_blocks() - n_free(); }
  int block_size() const { return block_size_; }

 private:
  const int block_size_;
  std::vector<int> reference_counts_;  // by block id; 0 is free
  std::vector<int> free_;              // a stack
};

}  // namespace tern

#endif  // COORDINATOR_BLOCK_MANAGER_H_
