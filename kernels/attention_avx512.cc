#include <immintrin.h>

#include "kernels/avx512.h"
#include "kernels/lanes_avx512.h"

namespace tern::avx512 {
namespace {

constexpr int kMaxHeadDim = 256;
// Query heads that share the loads of one key-value head.
constexpr int kMaxHeads = 4;
constexpr int kBlocksPerChunk = kAttentionChunk / kKvBlockSize;
static_assert(kKvBlockSize == 16, "one register holds the scores of a block");

// The softmax of the positions so far of one head, before the division.
struct State {
  float max;
  float sum;
  alignas(64) float out[kMaxHeadDim];
};

// The keys or values of one head in the blocks of one chunk. Blocks beyond the
// last position repeat the first one: their scores are not used.
struct Chunk {
  const uint16_t* k[kBlocksPerChunk];  // each [head_dim, kKvBlockSize]
  const uint16_t* v[kBlocksPerChunk];  // each [kKvBlockSize, head_dim]
  int n_positions;
};

// What one chunk adds: out = fma(out, old_factor, chunk's out * new_factor).
struct Factors {
  float old_factor;
  float new_factor;
};

// The chunk of positions [begin, begin + 64), as far as they exist.
Chunk MakeChunk(const AttentionArgs& a, int kv_head, int begin) {
  const size_t head_elements = static_cast<size_t>(a.head_dim) * kKvBlockSize;
  const size_t block_elements = a.n_kv_heads * head_elements;
  const int left = a.n_positions - begin;
  Chunk chunk;
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

__m512 LoadHalf16(const uint16_t* at) {
  return _mm512_cvtph_ps(
      _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at)));
}

// scores[h][j] of the 64 positions of a chunk, used or not. Each key is one
// lane, which adds over d in order. Meanwhile the next chunk comes to the
// cache: blocks are too short and too far apart for the hardware to foresee.
template <int kHeads>
void Scores(const Chunk& chunk, const Chunk& next, const float* q, int head_dim,
            float scale, float (*scores)[kAttentionChunk]) {
  __m512 acc[kHeads][kBlocksPerChunk];
#pragma GCC unroll 4
  for (int h = 0; h < kHeads; ++h) {
#pragma GCC unroll 4
    for (int b = 0; b < kBlocksPerChunk; ++b) acc[h][b] = _mm512_setzero_ps();
  }
  const uint16_t* k0 = chunk.k[0];
  const uint16_t* k1 = chunk.k[1];
  const uint16_t* k2 = chunk.k[2];
  const uint16_t* k3 = chunk.k[3];
  for (int d = 0; d < head_dim; ++d) {
    const int at = d * kKvBlockSize;
    // A head has head_dim / 2 cache lines of keys in a block, and of values.
    const uint16_t* const* ahead = d % 2 == 0 ? next.k : next.v;
#pragma GCC unroll 4
    for (int b = 0; b < kBlocksPerChunk; ++b) {
      _mm_prefetch(ahead[b] + d / 2 * 32, _MM_HINT_T0);
    }
    const __m512 k[kBlocksPerChunk] = {LoadHalf16(k0 + at), LoadHalf16(k1 + at),
                                       LoadHalf16(k2 + at),
                                       LoadHalf16(k3 + at)};
#pragma GCC unroll 4
    for (int h = 0; h < kHeads; ++h) {
      const __m512 qd = _mm512_set1_ps(q[h * head_dim + d]);
#pragma GCC unroll 4
      for (int b = 0; b < kBlocksPerChunk; ++b) {
        acc[h][b] = _mm512_fmadd_ps(qd, k[b], acc[h][b]);
      }
    }
  }
#pragma GCC unroll 4
  for (int h = 0; h < kHeads; ++h) {
#pragma GCC unroll 4
    for (int b = 0; b < kBlocksPerChunk; ++b) {
      _mm512_store_ps(scores[h] + b * kKvBlockSize,
                      _mm512_mul_ps(acc[h][b], _mm512_set1_ps(scale)));
    }
  }
}

// Replaces the first n scores by their weights and merges maximum and sum into
// the state.
Factors Softmax(float* scores, int n, bool first, State* state) {
  __m512 m = _mm512_set1_ps(-__builtin_inff());
  for (int j = 0; j < n; j += 16) {
    // The second operand is the result when the first is NaN.
    m = _mm512_mask_max_ps(m, FirstLanes(n - j), _mm512_load_ps(scores + j), m);
  }
  const float max = _mm512_reduce_max_ps(m);
  __m512 lanes = _mm512_setzero_ps();
  for (int j = 0; j < n; j += 16) {
    const __m512 p =
        Exp(_mm512_sub_ps(_mm512_load_ps(scores + j), _mm512_set1_ps(max)));
    _mm512_store_ps(scores + j, p);
    lanes = _mm512_mask_add_ps(lanes, FirstLanes(n - j), lanes, p);
  }
  const float sum = Total(lanes);
  if (first) {
    state->max = max;
    state->sum = sum;
    return {0.0f, 1.0f};
  }
  const float merged = max > state->max ? max : state->max;
  const __m512 olds = _mm512_set1_ps(state->max);
  const __m512 factors =
      Exp(_mm512_sub_ps(_mm512_mask_mov_ps(olds, 2, _mm512_set1_ps(max)),
                        _mm512_set1_ps(merged)));
  const __m128 pair = _mm512_castps512_ps128(factors);
  const float a = _mm_cvtss_f32(pair);
  const float b = _mm_cvtss_f32(_mm_shuffle_ps(pair, pair, 1));
  state->max = merged;
  state->sum = __builtin_fmaf(state->sum, a, sum * b);
  return {a, b};
}

// Merges dims [d, d + 16 * kVectors) of the chunk's weighted values into out;
// `last` has the dims of the last vector that exist.
template <int kHeads, int kVectors>
void Values(const Chunk& chunk, const float (*p)[kAttentionChunk], int head_dim,
            int d, __mmask16 last, bool first, const Factors* factors,
            State* states) {
  __m512 acc[kHeads][kVectors];
#pragma GCC unroll 4
  for (int h = 0; h < kHeads; ++h) {
#pragma GCC unroll 4
    for (int i = 0; i < kVectors; ++i) acc[h][i] = _mm512_setzero_ps();
  }
  for (int j = 0; j < chunk.n_positions; ++j) {
    const uint16_t* row =
        chunk.v[j / kKvBlockSize] + j % kKvBlockSize * head_dim + d;
    __m512 v[kVectors];
#pragma GCC unroll 4
    for (int i = 0; i < kVectors - 1; ++i) v[i] = LoadHalf16(row + 16 * i);
    v[kVectors - 1] = _mm512_cvtph_ps(
        _mm256_maskz_loadu_epi16(last, row + 16 * (kVectors - 1)));
#pragma GCC unroll 4
    for (int h = 0; h < kHeads; ++h) {
      const __m512 pj = _mm512_set1_ps(p[h][j]);
#pragma GCC unroll 4
      for (int i = 0; i < kVectors; ++i) {
        acc[h][i] = _mm512_fmadd_ps(pj, v[i], acc[h][i]);
      }
    }
  }
#pragma GCC unroll 4
  for (int h = 0; h < kHeads; ++h) {
#pragma GCC unroll 4
    for (int i = 0; i < kVectors; ++i) {
      // Lanes beyond head_dim stay within `out`, which is a multiple of 64
      // wide.
      float* out = states[h].out + d + 16 * i;
      __m512 merged = acc[h][i];
      if (!first) {
        merged = _mm512_fmadd_ps(
            _mm512_load_ps(out), _mm512_set1_ps(factors[h].old_factor),
            _mm512_mul_ps(merged, _mm512_set1_ps(factors[h].new_factor)));
      }
      _mm512_store_ps(out, merged);
    }
  }
}

template <int kHeads>
void AttendHeads(const AttentionArgs& a, int head, float* y) {
  const int head_dim = a.head_dim;
  const int kv_head = head / (a.n_heads / a.n_kv_heads);
  const float* q = a.q + static_cast<size_t>(head) * head_dim;

  State states[kHeads];
  alignas(64) float scores[kHeads][kAttentionChunk];
  Factors factors[kHeads];
  Chunk next = MakeChunk(a, kv_head, 0);
  for (int begin = 0; begin < a.n_positions; begin += kAttentionChunk) {
    const bool first = begin == 0;
    const Chunk chunk = next;
    if (begin + kAttentionChunk < a.n_positions) {
      next = MakeChunk(a, kv_head, begin + kAttentionChunk);
    }
    Scores<kHeads>(chunk, next, q, head_dim, a.scale, scores);
    for (int h = 0; h < kHeads; ++h) {
      factors[h] = Softmax(scores[h], chunk.n_positions, first, &states[h]);
    }
    for (int d = 0; d < head_dim; d += 64) {
      const int dims = head_dim - d;
      const __mmask16 last = FirstLanes(dims >= 64 ? 16 : (dims - 1) % 16 + 1);
      if (dims > 48) {
        Values<kHeads, 4>(chunk, scores, head_dim, d, last, first, factors,
                          states);
      } else if (dims > 32) {
        Values<kHeads, 3>(chunk, scores, head_dim, d, last, first, factors,
                          states);
      } else if (dims > 16) {
        Values<kHeads, 2>(chunk, scores, head_dim, d, last, first, factors,
                          states);
      } else {
        Values<kHeads, 1>(chunk, scores, head_dim, d, last, first, factors,
                          states);
      }
    }
  }
  for (int h = 0; h < kHeads; ++h) {
    float* out = y + static_cast<size_t>(head + h) * head_dim;
    const __m512 sum = _mm512_set1_ps(states[h].sum);
    for (int d = 0; d < head_dim; d += 16) {
      _mm512_mask_storeu_ps(
          out + d, FirstLanes(head_dim - d),
          _mm512_div_ps(_mm512_load_ps(states[h].out + d), sum));
    }
  }
}

}  // namespace

void Attend(const AttentionArgs& args, int head_begin, int head_end, float* y) {
  const int group = args.n_heads / args.n_kv_heads;
  int head = head_begin;
  while (head < head_end) {
    const int group_end = (head / group + 1) * group;
    const int end = group_end < head_end ? group_end : head_end;
    if (end - head >= kMaxHeads) {
      AttendHeads<kMaxHeads>(args, head, y);
      head += kMaxHeads;
    } else if (end - head >= 2) {
      AttendHeads<2>(args, head, y);
      head += 2;
    } else {
      AttendHeads<1>(args, head, y);
      ++head;
    }
  }
}

}  // namespace tern::avx512
