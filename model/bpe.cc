#include "model/bpe.h"

#include <algorithm>
#include <functional>
#include <limits>

#include "util/logging.h"

namespace tern {

void BpeMerges::Reserve(size_t n) {
  ranks_.reserve(n);
  joined_.reserve(n);
}

void BpeMerges::Add(int32_t left, int32_t right, int32_t joined) {
  ranks_.emplace(Key(left, right), static_cast<uint32_t>(joined_.size()));
  joined_.push_back(joined);
}

uint32_t BpeMerges::RankOf(int32_t left, int32_t right) const {
  const auto it = ranks_.find(Key(left, right));
  return it == ranks_.end() ? kNoRank : it->second;
}

// A heap holds every pair that merges, as rank and place, so that the smallest
// number is the pair to merge next. A merge changes its neighbours' pairs;
// their old entries stay in the heap and are known by their rank being no
// longer that of the place. A pair cannot come back to a place that it left,
// because the tokens there only grow longer, so an entry is right when its rank
// is.
void BpeMerges::Merge(absl::Span<const int32_t> ids, Scratch* scratch,
                      std::vector<int32_t>* out) const {
  CHECK(ids.size() < std::numeric_limits<int32_t>::max());
  const int32_t n = static_cast<int32_t>(ids.size());
  if (n == 0) return;
  auto& symbols = scratch->symbols_;
  auto& heap = scratch->heap_;
  const auto entry = [](uint32_t rank, int32_t place) {
    return static_cast<uint64_t>(rank) << 32 | static_cast<uint32_t>(place);
  };

  symbols.resize(n);
  heap.clear();
  for (int32_t i = 0; i < n; ++i) {
    const bool is_last = i + 1 == n;
    const uint32_t rank = is_last ? kNoRank : RankOf(ids[i], ids[i + 1]);
    symbols[i] = {ids[i], i - 1, is_last ? -1 : i + 1, rank};
    if (rank != kNoRank) heap.push_back(entry(rank, i));
  }
  std::make_heap(heap.begin(), heap.end(), std::greater<>());

  const auto update = [&](int32_t place) {
    Scratch::Symbol& symbol = symbols[place];
    symbol.rank =
        symbol.next < 0 ? kNoRank : RankOf(symbol.id, symbols[symbol.next].id);
    if (symbol.rank == kNoRank) return;
    heap.push_back(entry(symbol.rank, place));
    std::push_heap(heap.begin(), heap.end(), std::greater<>());
  };
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), std::greater<>());
    const uint32_t rank = static_cast<uint32_t>(heap.back() >> 32);
    const int32_t place = static_cast<int32_t>(heap.back() & 0xffffffff);
    heap.pop_back();
    Scratch::Symbol& left = symbols[place];
    if (left.rank != rank) continue;
    Scratch::Symbol& right = symbols[left.next];
    right.rank = kNoRank;
    left.id = joined_[rank];
    left.next = right.next;
    if (left.next >= 0) symbols[left.next].previous = place;
    update(place);
    if (left.previous >= 0) update(left.previous);
  }
  for (int32_t i = 0; i >= 0; i = symbols[i].next)
    out->push_back(symbols[i].id);
}

}  // namespace tern
