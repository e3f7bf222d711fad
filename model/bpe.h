#ifndef MODEL_BPE_H_
#define MODEL_BPE_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/types/span.h"

namespace tern {

// The merges of byte-pair encoding: which two neighbouring symbols become which
// symbol, and which pair goes first. Symbols are numbers that the caller gives
// a meaning, token ids mostly; any int32_t will do.
//
// Filled by Add(), then immutable and thread-safe.
class BpeMerges {
 public:
  // Room that calls of Merge() share, one caller at a time. Holds nothing
  // between calls.
  class Scratch {
    friend class BpeMerges;
    struct Symbol {
      int32_t id;
      int32_t previous;  // index, -1 for none
      int32_t next;      // index, -1 for none
      // Of the pair that begins here; kNoRank if it does not merge.
      uint32_t rank;
      int32_t joined;
    };
    std::vector<Symbol> symbols_;
    std::vector<uint64_t> heap_;
  };

  void Reserve(size_t n);

  // Adds a merge; lower ranks go first. Several pairs may have one rank. False,
  // and nothing changes, when the pair is there already.
  // REQUIRES: rank < 2^32 - 1.
  bool Add(int32_t left, int32_t right, int32_t joined, uint32_t rank);

  // Merges the pair of lowest rank in `ids`, the leftmost one among equals,
  // until no pair is left that merges; appends the result to *out. Takes O(n
  // log n). REQUIRES: ids.size() < 2^31.
  void Merge(absl::Span<const int32_t> ids, Scratch* scratch,
             std::vector<int32_t>* out) const;

 private:
  static constexpr uint32_t kNoRank = 0xffffffff;

  static uint64_t Key(int32_t left, int32_t right) {
    return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 |
           static_cast<uint32_t>(right);
  }

  struct Merged {
    uint32_t rank;
    int32_t joined;
  };
  Merged Find(int32_t left, int32_t right) const;

  absl::flat_hash_map<uint64_t, Merged> merges_;  // by Key()
};

}  // namespace tern

#endif  // MODEL_BPE_H_
