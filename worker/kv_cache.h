#ifndef WORKER_KV_CACHE_H_
#define WORKER_KV_CACHE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/attention.h"
#include "worker/huge_buffer.h"

namespace tern {

// Keys and values of a stage's layers, in blocks of kKvBlockSize tokens, and
// which sequences hold which blocks. A full block may have several holders, and
// keeps what it holds after the last one, until it is given out anew. What the
// stage sent to the next one may be kept with them.
//
// The coordinator hands out the blocks; a sequence's table lists them in the
// order of its positions. What it says is checked here, because it comes from
// another machine: a mistake must not make one sequence read another's text.
// Not thread-safe: owned by the runner thread (the pool's elements may be read
// and written by several threads at once).
class KvCache {
 public:
  struct Shape {
    int n_layers;
    int n_kv_heads;
    int head_dim;
    int n_blocks;
    // Tokens that one sequence may hold.
    int context_length;
    // Floats of each token that the next stage was sent, if they are kept; 0
    // otherwise.
    int boundary_size = 0;
  };

  // Bytes of the pool, with those of the boundary.
  static size_t PoolBytes(const Shape& shape);

  // Allocates an empty pool. Between several memory nodes its pages take turns
  // where the system allows that: which thread will read a sequence's block
  // cannot be told when it is written. RESOURCE_EXHAUSTED when the system
  // refuses the memory.
  static absl::StatusOr<std::unique_ptr<KvCache>> Create(
      const Shape& shape, absl::Span<const int> nodes = {});

  // Forgets every sequence. Full blocks keep what they hold, and can be taken
  // over.
  void ReleaseAll();

  // Forgets what the blocks hold as well. The pool's bytes stay; nobody reads
  // them before they are written again.
  void Clear();

  // ALREADY_EXISTS when the sequence is open.
  absl::Status Open(int64_t sequence_id);

  // Frees the sequence and its blocks. NOT_FOUND when it is not open.
  absl::Status Release(int64_t sequence_id);

  // Appends full blocks to the sequence's table, all or none: it has the tokens
  // in them now as well. INVALID_ARGUMENT when a block does not exist or is not
  // full, when the sequence's own blocks are not full to the end, or when the
  // context length does not suffice; NOT_FOUND when the sequence is not open.
  absl::Status TakeOver(int64_t sequence_id, absl::Span<const int32_t> blocks);

  // Appends blocks of nobody to the sequence's table, all or none, and extends
  // it by tokens [position, position + n_tokens), of which the last `n_drafts`
  // may be written over by the next call. INVALID_ARGUMENT when a block does
  // not exist or is held, when `position` is not the number of tokens stored so
  // far, drafts of the last call counted or not, or when the blocks or the
  // context length do not suffice; NOT_FOUND when the sequence is not open.
  // REQUIRES: 0 <= n_drafts < n_tokens, if n_tokens is not below 1.
  absl::Status Extend(int64_t sequence_id, absl::Span<const int32_t> new_blocks,
                      int32_t position, int32_t n_tokens, int32_t n_drafts = 0);

  // The block table. Valid until the next call that changes the sequence.
  // REQUIRES: the sequence is open.
  absl::Span<const int32_t> BlockTable(int64_t sequence_id) const;

  // Its tokens: those in blocks taken over, and those it was extended by.
  // REQUIRES: the sequence is open.
  int32_t TokenCount(int64_t sequence_id) const;

  int blocks_in_use() const { return n_in_use_; }
  int sequence_count() const { return static_cast<int>(sequences_.size()); }
  // Calls of Extend() that succeeded: while it stands still no block's content
  // changes.
  int64_t extension_count() const { return n_extensions_; }
  const Shape& shape() const { return shape_; }
  size_t pool_bytes() const { return pool_.size() + boundary_.size(); }

  // Pools of a layer, laid out as AttentionArgs asks. layer counts from the
  // stage's first.
  uint16_t* k_pool(int layer) const { return LayerPool(layer, 0); }
  uint16_t* v_pool(int layer) const { return LayerPool(layer, 1); }

  // One block of a layer.
  KvBlockView Block(int layer, int32_t block_id) const;

  // Of one block what the next stage was sent: [kKvBlockSize, boundary_size].
  // REQUIRES: the boundary is kept.
  float* Boundary(int32_t block_id) const;

 private:
  struct Sequence {
    std::vector<int32_t> blocks;
    int32_t n_tokens = 0;
    int32_t n_drafts = 0;  // of them, the last
  };

  KvCache(const Shape& shape, HugeBuffer pool, HugeBuffer boundary);
  absl::StatusOr<Sequence*> FindOpen(int64_t sequence_id);
  bool IsInPool(int32_t block) const {
    return block >= 0 && block < shape_.n_blocks;
  }
  // For tokens [position, position + n_tokens).
  absl::Status CheckLength(int64_t sequence_id, const Sequence& sequence,
                           size_t n_new_blocks, int32_t position,
                           int32_t n_tokens) const;
  void Hold(int32_t block);
  uint16_t* LayerPool(int layer, int is_v) const;

  const Shape shape_;
  const HugeBuffer pool_;  // [n_layers, 2, n_blocks, KvBlockElements] float16
  // float [n_blocks, kKvBlockSize, boundary_size]
  const HugeBuffer boundary_;
  absl::flat_hash_map<int64_t, Sequence> sequences_;
  struct BlockState {
    int32_t n_holders = 0;
    int32_t n_filled = 0;  // positions written, from the first on
  };
  std::vector<BlockState> blocks_;  // [n_blocks]
  int n_in_use_ = 0;                // blocks with a holder
  int64_t n_extensions_ = 0;
};

}  // namespace tern

#endif  // WORKER_KV_CACHE_H_
