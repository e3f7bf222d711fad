#include "coordinator/block_manager.h"

#include "util/logging.h"

namespace tern {

BlockManager::BlockManager(int n_blocks, int block_size)
    : block_size_(block_size), reference_counts_(n_blocks, 0) {
  CHECK(n_blocks >= 0);
  CHECK(block_size > 0);
  free_.reserve(n_blocks);
  for (int id = n_blocks - 1; id >= 0; --id) free_.push_back(id);
}

int BlockManager::Allocate() {
  CHECK(!free_.empty()) << "no free KV block";
  const int id = free_.back();
  free_.pop_back();
  CHECK(reference_counts_[id] == 0) << "block " << id << " was not free";
  reference_counts_[id] = 1;
  return id;
}

void BlockManager::AddReference(int block_id) {
  CHECK(block_id >= 0 && block_id < n_blocks());
  CHECK(reference_counts_[block_id] > 0) << "block " << block_id << " is free";
  ++reference_counts_[block_id];
}

void BlockManager::Release(absl::Span<const int> block_ids) {
  for (size_t i = block_ids.size(); i-- > 0;) {
    const int id = block_ids[i];
    CHECK(id >= 0 && id < n_blocks());
    CHECK(reference_counts_[id] > 0) << "block " << id << " is free already";
    if (--reference_counts_[id] == 0) free_.push_back(id);
  }
}

}  // namespace tern
