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

}  // namespace tern

#endif  // KERNELS_ATTENTION_CHUNK_H_
