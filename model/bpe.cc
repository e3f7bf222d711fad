#include "model/bpe.h"

#include <algorithm>
#include <functional>
#include <limits>

#include "util/logging.h"

namespace tern {

void BpeMerges::Reserve(size_t n) { merges_.reserve(n); }

bool BpeMerges::Add(int32_t left, int32_t right, int32_t joined,
                    uint32_t rank) {
  CHECK(rank != kNoRank);
  return merges_.emplace(Key(left, right), Merged{rank, joined}).second;
}

BpeMerges::Merged BpeMerges::Find(int32_t left, int32_t right) const {
  const auto it = merges_.find(Key(left, right));
  return it == merges_.end() ? Merged{kNoRank, 0} : it->second;
}

// A heap holds every pair that merges, as rank and place, so that the smallest
// number is the pair to merge next. A merge changes its neighbours' pairs;
// their old entries stay in the heap and are passed over when the rank is no
// longer that of the place. Where it is, the pair that stands there now is the
// one to merge, even if the entry was made for another.
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
    const Merged merged =
        is_last ? Merged{kNoRank, 0} : Find(ids[i], ids[i + 1]);
    symbols[i] = {ids[i], i - 1, is_last ? -1 : i + 1, merged.rank,
                  merged.joined};
    if (merged.rank != kNoRank) heap.push_back(entry(merged.rank, i));
  }
  std::make_heap(heap.begin(), heap.end(), std::greater<>());

  const auto update = [&](int32_t place) {
    Scratch::Symbol& symbol = symbols[place];
    const Merged merged = symbol.next < 0
                              ? Merged{kNoRank, 0}
                              : Find(symbol.id, symbols[symbol.next].id);
    symbol.rank = merged.rank;
    symbol.joined = merged.joined;
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
    left.id = left.joined;
    left.next = right.next;
    if (left.next >= 0) symbols[left.next].previous = place;
    update(place);
    if (left.previous >= 0) update(left.previous);
  }
  for (int32_t i = 0; i >= 0; i = symbols[i].next)
    out->push_back(symbols[i].id);
}

}  // namespace tern
