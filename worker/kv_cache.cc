#include "worker/kv_cache.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "util/logging.h"
#include "util/status_macros.h"

namespace tern {
namespace {

size_t LayerPoolElements(const KvCache::Shape& shape) {
  return KvBlockElements(shape.n_kv_heads, shape.head_dim) * shape.n_blocks;
}

size_t KvBytes(const KvCache::Shape& shape) {
  return LayerPoolElements(shape) * 2 * shape.n_layers * sizeof(uint16_t);
}

size_t BoundaryBytes(const KvCache::Shape& shape) {
  return sizeof(float) * shape.n_blocks * kKvBlockSize * shape.boundary_size;
}

}  // namespace

size_t KvCache::PoolBytes(const Shape& shape) {
  return KvBytes(shape) + BoundaryBytes(shape);
}

absl::StatusOr<std::unique_ptr<KvCache>> KvCache::Create(
    const Shape& shape, absl::Span<const int> nodes) {
  CHECK(shape.n_layers > 0 && shape.n_blocks > 0 && shape.context_length > 0);
  ASSIGN_OR_RETURN(HugeBuffer pool,
                   HugeBuffer::Allocate(KvBytes(shape), "the KV pool"));
  HugeBuffer boundary;
  if (shape.boundary_size > 0) {
    ASSIGN_OR_RETURN(boundary,
                     HugeBuffer::Allocate(BoundaryBytes(shape),
                                          "what is kept for the next stage"));
  }
  if (nodes.size() > 1) {
    const absl::Status spread = pool.Interleave(nodes);
    if (!spread.ok()) {
      LOG(WARNING) << "event=kv_pool_not_interleaved nodes=" << nodes.size()
                   << " status=\"" << spread.ToString() << "\"";
    }
  }
  return std::unique_ptr<KvCache>(
      new KvCache(shape, std::move(pool), std::move(boundary)));
}

KvCache::KvCache(const Shape& shape, HugeBuffer pool, HugeBuffer boundary)
    : shape_(shape),
      pool_(std::move(pool)),
      boundary_(std::move(boundary)),
      blocks_(shape.n_blocks) {}

void KvCache::ReleaseAll() {
  sequences_.clear();
  for (BlockState& block : blocks_) block.n_holders = 0;
  n_in_use_ = 0;
}

void KvCache::Clear() {
  ReleaseAll();
  blocks_.assign(blocks_.size(), BlockState());
}

absl::Status KvCache::Open(int64_t sequence_id) {
  if (!sequences_.try_emplace(sequence_id).second) {
    return absl::AlreadyExistsError(
        absl::StrCat("sequence ", sequence_id, " is open already"));
  }
  return absl::OkStatus();
}

absl::Status KvCache::Release(int64_t sequence_id) {
  const auto it = sequences_.find(sequence_id);
  if (it == sequences_.end()) {
    return absl::NotFoundError(
        absl::StrCat("sequence ", sequence_id, " to release is not open"));
  }
  for (const int32_t block : it->second.blocks) {
    if (--blocks_[block].n_holders == 0) --n_in_use_;
  }
  sequences_.erase(it);
  return absl::OkStatus();
}

absl::StatusOr<KvCache::Sequence*> KvCache::FindOpen(int64_t sequence_id) {
  const auto it = sequences_.find(sequence_id);
  if (it == sequences_.end()) {
    return absl::NotFoundError(
        absl::StrCat("sequence ", sequence_id, " is not open"));
  }
  return &it->second;
}

absl::Status KvCache::CheckLength(int64_t sequence_id, const Sequence& sequence,
                                  size_t n_new_blocks, int32_t position,
                                  int32_t n_tokens) const {
  if (n_tokens < 1 || n_tokens > shape_.context_length - position) {
    return absl::InvalidArgumentError(absl::StrCat(
        "sequence ", sequence_id, " at position ", position, " cannot grow by ",
        n_tokens, " tokens; the context holds ", shape_.context_length));
  }
  const size_t blocks_max =
      (shape_.context_length + kKvBlockSize - 1) / kKvBlockSize;
  const size_t n_blocks = sequence.blocks.size() + n_new_blocks;
  if (n_blocks > blocks_max) {
    return absl::InvalidArgumentError(absl::StrCat(
        "sequence ", sequence_id, " would hold ", n_blocks,
        " KV blocks; the context needs no more than ", blocks_max));
  }
  if (n_blocks * kKvBlockSize < static_cast<size_t>(position) + n_tokens) {
    return absl::InvalidArgumentError(absl::StrCat(
        "sequence ", sequence_id, " has ", n_blocks, " KV blocks of ",
        kKvBlockSize, " tokens; ", position + n_tokens, " tokens need more"));
  }
  return absl::OkStatus();
}

void KvCache::Hold(int32_t block) {
  if (blocks_[block].n_holders++ == 0) ++n_in_use_;
}

absl::Status KvCache::TakeOver(int64_t sequence_id,
                               absl::Span<const int32_t> blocks) {
  ASSIGN_OR_RETURN(Sequence* const sequence, FindOpen(sequence_id));
  if (sequence->blocks.size() * kKvBlockSize !=
      static_cast<size_t>(sequence->n_tokens)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "sequence ", sequence_id, " at position ", sequence->n_tokens,
        " cannot take over a KV block: its own last one is not full"));
  }
  // Sized first: the number of tokens could overflow.
  if (blocks.size() > static_cast<size_t>(shape_.n_blocks)) {
    return absl::InvalidArgumentError(
        absl::StrCat("sequence ", sequence_id, " takes over ", blocks.size(),
                     " KV blocks; the pool has ", shape_.n_blocks));
  }
  const int32_t n_tokens = static_cast<int32_t>(blocks.size()) * kKvBlockSize;
  RETURN_IF_ERROR(CheckLength(sequence_id, *sequence, blocks.size(),
                              sequence->n_tokens, n_tokens));
  for (const int32_t block : blocks) {
    if (IsInPool(block) && blocks_[block].n_filled == kKvBlockSize) continue;
    return absl::InvalidArgumentError(absl::StrCat(
        "KV block ", block, ", which sequence ", sequence_id, " takes over, ",
        IsInPool(block)
            ? absl::StrCat("holds ", blocks_[block].n_filled, " tokens of ",
                           kKvBlockSize)
            : absl::StrCat("does not exist; the pool has ", shape_.n_blocks)));
  }
  for (const int32_t block : blocks) Hold(block);
  sequence->blocks.insert(sequence->blocks.end(), blocks.begin(), blocks.end());
  sequence->n_tokens += n_tokens;
  sequence->n_drafts = 0;
  return absl::OkStatus();
}

absl::Status KvCache::Extend(int64_t sequence_id,
                             absl::Span<const int32_t> new_blocks,
                             int32_t position, int32_t n_tokens,
                             int32_t n_drafts) {
  ASSIGN_OR_RETURN(Sequence* const sequence, FindOpen(sequence_id));
  if (position > sequence->n_tokens ||
      position < sequence->n_tokens - sequence->n_drafts) {
    return absl::InvalidArgumentError(absl::StrCat(
        "sequence ", sequence_id, " goes on at position ", sequence->n_tokens,
        sequence->n_drafts == 0
            ? ""
            : absl::StrCat(" or up to ", sequence->n_drafts, " before it"),
        ", not at ", position));
  }
  RETURN_IF_ERROR(CheckLength(sequence_id, *sequence, new_blocks.size(),
                              position, n_tokens));
  DCHECK(n_drafts >= 0 && n_drafts < n_tokens);
  size_t n_taken = 0;
  for (; n_taken < new_blocks.size(); ++n_taken) {
    const int32_t block = new_blocks[n_taken];
    if (!IsInPool(block) || blocks_[block].n_holders > 0) break;
    Hold(block);
  }
  if (n_taken < new_blocks.size()) {
    for (size_t i = 0; i < n_taken; ++i) {
      blocks_[new_blocks[i]].n_holders = 0;
      --n_in_use_;
    }
    const int32_t block = new_blocks[n_taken];
    return absl::InvalidArgumentError(absl::StrCat(
        "KV block ", block, " for sequence ", sequence_id,
        IsInPool(block)
            ? " is held already"
            : absl::StrCat(" does not exist; the pool has ", shape_.n_blocks)));
  }
  ++n_extensions_;
  for (const int32_t block : new_blocks) blocks_[block].n_filled = 0;
  sequence->blocks.insert(sequence->blocks.end(), new_blocks.begin(),
                          new_blocks.end());
  // Up to where drafts were that have not come true.
  const int32_t end = std::max(position + n_tokens, sequence->n_tokens);
  sequence->n_tokens = position + n_tokens;
  sequence->n_drafts = n_drafts;
  for (int32_t i = position / kKvBlockSize; i * kKvBlockSize < end; ++i) {
    blocks_[sequence->blocks[i]].n_filled = std::clamp<int32_t>(
        sequence->n_tokens - i * kKvBlockSize, 0, kKvBlockSize);
  }
  return absl::OkStatus();
}

absl::Span<const int32_t> KvCache::BlockTable(int64_t sequence_id) const {
  const auto it = sequences_.find(sequence_id);
  CHECK(it != sequences_.end());
  return it->second.blocks;
}

int32_t KvCache::TokenCount(int64_t sequence_id) const {
  const auto it = sequences_.find(sequence_id);
  CHECK(it != sequences_.end());
  return it->second.n_tokens;
}

KvBlockView KvCache::Block(int layer, int32_t block_id) const {
  const size_t offset =
      block_id * KvBlockElements(shape_.n_kv_heads, shape_.head_dim);
  return {k_pool(layer) + offset, v_pool(layer) + offset, shape_.n_kv_heads,
          shape_.head_dim};
}

float* KvCache::Boundary(int32_t block_id) const {
  DCHECK(shape_.boundary_size > 0);
  return reinterpret_cast<float*>(boundary_.data()) +
         size_t{kKvBlockSize} * block_id * shape_.boundary_size;
}

uint16_t* KvCache::LayerPool(int layer, int is_v) const {
  DCHECK(layer >= 0 && layer < shape_.n_layers);
  return reinterpret_cast<uint16_t*>(pool_.data()) +
         (size_t{2} * layer + is_v) * LayerPoolElements(shape_);
}

}  // namespace tern
