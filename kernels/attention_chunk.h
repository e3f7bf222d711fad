#ifndef KERNELS_ATTENTION_CHUNK_H_
#define KERNELS_ATTENTION_CHUNK_H_

#include <cstddef>
#include <cstdint>

#include "kernels/attention.h"

// How the fast attention kernels see a chunk of positions. The function has
// internal linkage on purpose, see kernels/avx512.h.
namespace tern {

inline constexpr int kBlocksPerChunk = kAttentionChunk / kKvBlockSize;

// The keys or values of one head in the blocks of one chunk. Blocks beyond the
// last position repeat the first one: their scores are not used.
struct KvChunk {
  const uint16_t* k[kBlocksPerChunk];  // each [head_dim, kKvBlockSize]
  const uint16_t* v[kBlocksPerChunk];  // each [kKvBlockSize, head_dim]
  int n_positions;
};

// One query of one head.
struct AttentionRow {
  const float* q;  // [head_dim]
  float* y;        // [head_dim]
  int n_positions;
};

// What one chunk adds: out = fma(out, old_factor, chunk's out * new_factor).
struct ChunkFactors {
  float old_factor;
  float new_factor;
};

// The chunk of positions [begin, begin + 64), as far as they are below
// n_positions.
static inline KvChunk MakeKvChunk(const AttentionArgs& a, int kv_head,
                                  int begin, int n_positions) {
  const size_t head_elements = static_cast<size_t>(a.head_dim) * kKvBlockSize;
  const size_t block_elements = a.n_kv_heads * head_elements;
  const int left = n_positions - begin;
  KvChunk chunk;
  chunk.n_positions = left < kAttentionChunk ? left : kAttentionChunk;
  const int32_t* table = a.block_table + begin / kKvBlockSize;
  for (int b = 0; b < kBlocksPerChunk; ++b) {
    const int used = b * kKvBlockSize < chunk.n_positions ? b : 0;
    const size_t offset =
        table[used] * block_elements + kv_head * head_elements;
    chunk.k[b] = a.k_pool + offset;
    chunk.v[b] = a.v_pool + offset;
  }
  return chunk;
}

// Calls add(kv_head, row) for each query of heads [head_begin, head_end), those
// that share keys and values together: all heads of one query, then those of
// the next. end(kv_head) follows the last of them.
template <typename Add, typename End>
static inline void VisitAttentionRows(const AttentionArgs& a, int head_begin,
                                      int head_end, float* y, Add add,
                                      End end) {
  const int group = a.n_heads / a.n_kv_heads;
  const size_t stride = static_cast<size_t>(a.n_heads) * a.head_dim;
  for (int head = head_begin; head < head_end;) {
    const int kv_head = head / group;
    const int group_end = (kv_head + 1) * group;
    const int next = group_end < head_end ? group_end : head_end;
    for (int i = 0; i < a.n_queries; ++i) {
      for (int h = head; h < next; ++h) {
        const size_t at = i * stride + static_cast<size_t>(h) * a.head_dim;
        add(kv_head, AttentionRow{a.q + at, y + at, a.n_positions + i});
      }
    }
    end(kv_head);
    head = next;
  }
}

}  // namespace tern

#endif  // KERNELS_ATTENTION_CHUNK_H_
