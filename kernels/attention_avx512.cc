#include <immintrin.h>

#include "kernels/attention_chunk.h"
#include "kernels/avx512.h"
#include "kernels/lanes_avx512.h"

namespace tern::avx512 {
namespace {

constexpr int kMaxHeadDim = 256;
// Rows, each a query and a query head, that pass over the keys and values
// together, a chunk at a time. Rows of several key-value heads make the reads
// of a block one sequence, which the hardware foresees: asking for one head's
// chunks ahead reached half the speed of memory.
constexpr int kMaxRows = 32;
// As many rows or fewer compute faster than memory gives keys and values.
constexpr int kFewRows = 4;
static_assert(kKvBlockSize == 16, "one register holds the scores of a block");

template <int kValue>
struct Constant {
  static constexpr int value = kValue;
};

using Row = AttentionRow;

// The softmax of the positions so far of one row, before the division.
struct State {
  float max;
  float sum;
  alignas(64) float out[kMaxHeadDim];
};

__m512 LoadHalf16(const uint16_t* at) {
  return _mm512_cvtph_ps(
      _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at)));
}

// Asks for two cache lines, the i-th pair of a head's keys or values in a
// block. May lie beyond.
void PrefetchPair(const uint16_t* block, int i) {
  _mm_prefetch(block + 64 * i, _MM_HINT_T0);
  _mm_prefetch(block + 64 * i + 32, _MM_HINT_T0);
}

// scores[r][j] of the positions of a chunk, and of some that follow. Each key
// is one lane, which adds over d in order. Meanwhile the next keys come to the
// cache, block by block as they lie in memory.
template <int kRows>
void Scores(const KvChunk& chunk, const KvChunk& next, const Row* rows,
            int head_dim, float scale, float (*scores)[kAttentionChunk]) {
  // 16 sums fill the pipes and leave registers for what they share.
  constexpr int kBlocks = kRows > 4 ? 2 : 4;
  const float* q[kRows];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) q[r] = rows[r].q;
  for (int first = 0; first * kKvBlockSize < chunk.n_positions;
       first += kBlocks) {
    __m512 acc[kRows][kBlocks];
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (int b = 0; b < kBlocks; ++b) acc[r][b] = _mm512_setzero_ps();
    }
    const uint16_t* const* keys = chunk.k + first;
    int ahead = 0;  // block asked for, of head_dim / 4 pairs of lines
    int ahead_pair = 0;
    for (int d = 0; d < head_dim; ++d) {
      const int at = d * kKvBlockSize;
      if (kRows <= kFewRows) {
        if (ahead_pair == head_dim / 4 && ahead < kBlocksPerChunk - 1) {
          ++ahead;
          ahead_pair = 0;
        }
        PrefetchPair(next.k[ahead], ahead_pair++);
      }
      __m512 k[kBlocks];
#pragma GCC unroll 4
      for (int b = 0; b < kBlocks; ++b) {
        k[b] = LoadHalf16(keys[b] + at);
      }
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
        const __m512 qd = _mm512_set1_ps(q[r][d]);
#pragma GCC unroll 4
        for (int b = 0; b < kBlocks; ++b) {
          acc[r][b] = _mm512_fmadd_ps(qd, k[b], acc[r][b]);
        }
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (int b = 0; b < kBlocks; ++b) {
        _mm512_store_ps(scores[r] + (first + b) * kKvBlockSize,
                        _mm512_mul_ps(acc[r][b], _mm512_set1_ps(scale)));
      }
    }
  }
}

// Replaces the first n scores by their weights and merges maximum and sum into
// the state.
ChunkFactors Softmax(float* scores, int n, bool first, State* state) {
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
// `last` has the dims of the last vector that exist. Row r sees the first n[r]
// positions, all rows at least n_common. Meanwhile the next values come to the
// cache.
template <int kRows, int kVectors>
void Values(const KvChunk& chunk, const KvChunk& next,
            const float (*p)[kAttentionChunk], const int* n, int n_common,
            int head_dim, int d, __mmask16 last, bool first,
            const ChunkFactors* factors, State* states) {
  __m512 acc[kRows][kVectors];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int i = 0; i < kVectors; ++i) acc[r][i] = _mm512_setzero_ps();
  }
  const auto load = [&](int j, __m512* v) __attribute__((always_inline)) {
    const uint16_t* row =
        chunk.v[j / kKvBlockSize] + j % kKvBlockSize * head_dim + d;
#pragma GCC unroll 4
    for (int i = 0; i < kVectors - 1; ++i) v[i] = LoadHalf16(row + 16 * i);
    v[kVectors - 1] = _mm512_cvtph_ps(
        _mm256_maskz_loadu_epi16(last, row + 16 * (kVectors - 1)));
  };
  for (int j = 0; j < n_common; ++j) {
    if (kRows <= kFewRows) {
      PrefetchPair(next.v[j / kKvBlockSize], d / 4 + j % kKvBlockSize);
    }
    __m512 v[kVectors];
    load(j, v);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const __m512 pj = _mm512_set1_ps(p[r][j]);
#pragma GCC unroll 4
      for (int i = 0; i < kVectors; ++i) {
        acc[r][i] = _mm512_fmadd_ps(pj, v[i], acc[r][i]);
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
    // Of the queries of a tile the later ones see a few positions more.
    for (int j = n_common; j < n[r]; ++j) {
      __m512 v[kVectors];
      load(j, v);
      const __m512 pj = _mm512_set1_ps(p[r][j]);
#pragma GCC unroll 4
      for (int i = 0; i < kVectors; ++i) {
        acc[r][i] = _mm512_fmadd_ps(pj, v[i], acc[r][i]);
      }
    }
    if (n[r] == 0) continue;
#pragma GCC unroll 4
    for (int i = 0; i < kVectors; ++i) {
      // Lanes beyond head_dim stay within `out`, which is a multiple of 64
      // wide.
      float* out = states[r].out + d + 16 * i;
      __m512 merged = acc[r][i];
      if (!first) {
        merged = _mm512_fmadd_ps(
            _mm512_load_ps(out), _mm512_set1_ps(factors[r].old_factor),
            _mm512_mul_ps(merged, _mm512_set1_ps(factors[r].new_factor)));
      }
      _mm512_store_ps(out, merged);
    }
  }
}

// Adds the chunk of positions [begin, begin + 64) to the states of rows of one
// key-value head, none of which sees fewer positions than the one before.
// `next` is what is needed afterwards.
template <int kRows>
void AddChunk(const AttentionArgs& a, const KvChunk& chunk, const KvChunk& next,
              const Row* rows, int begin, State* states) {
  constexpr int kVectors = kRows > 4 ? 2 : 4;
  const bool first = begin == 0;
  const int head_dim = a.head_dim;
  alignas(64) float scores[kRows][kAttentionChunk];
  Scores<kRows>(chunk, next, rows, head_dim, a.scale, scores);
  ChunkFactors factors[kRows];
  int n[kRows];  // positions of the chunk that a row sees
  for (int r = 0; r < kRows; ++r) {
    const int left = rows[r].n_positions - begin;
    n[r] = left < 0 ? 0 : left < kAttentionChunk ? left : kAttentionChunk;
    if (n[r] > 0) factors[r] = Softmax(scores[r], n[r], first, &states[r]);
  }
  for (int d = 0; d < head_dim; d += 16 * kVectors) {
    const int dims = head_dim - d;
    const int n_vectors = (dims + 15) / 16;
    const __mmask16 last =
        FirstLanes(dims >= 16 * kVectors ? 16 : (dims - 1) % 16 + 1);
    const auto values = [&](auto vectors) {
      Values<kRows, decltype(vectors)::value>(chunk, next, scores, n, n[0],
                                              head_dim, d, last, first, factors,
                                              states);
    };
    if (n_vectors >= kVectors) {
      values(Constant<kVectors>());
    } else if (n_vectors == 3) {
      values(Constant < kVectors < 3 ? kVectors : 3 > ());
    } else if (n_vectors == 2) {
      values(Constant<2>());
    } else {
      values(Constant<1>());
    }
  }
}

// Rows that are attended together.
class RowBatch {
 public:
  RowBatch(const AttentionArgs& args) : args_(args) {}

  // Rows of a key-value head come one after the other, by their positions.
  void Add(int kv_head, const Row& row) {
    rows_[n_rows_] = row;
    kv_heads_[n_rows_] = kv_head;
    if (row.n_positions > n_positions_) n_positions_ = row.n_positions;
    if (++n_rows_ == kMaxRows) Attend();
  }

  // Attends all rows and forgets them.
  void Attend() {
    if (n_rows_ == 0) return;
    KvChunk chunk = ChunkOf(0, 0);
    for (int begin = 0; begin < n_positions_; begin += kAttentionChunk) {
      for (int r = 0; r < n_rows_;) {
        const int n = RowsTogether(r);
        const bool last = r + n == n_rows_;
        const KvChunk next =
            last ? ChunkOf(0, begin + kAttentionChunk) : ChunkOf(r + n, begin);
        AddChunkToRows(chunk, next, r, n, begin);
        chunk = next;
        r += n;
      }
    }
    for (int r = 0; r < n_rows_; ++r) {
      const __m512 sum = _mm512_set1_ps(states_[r].sum);
      for (int d = 0; d < args_.head_dim; d += 16) {
        _mm512_mask_storeu_ps(
            rows_[r].y + d, FirstLanes(args_.head_dim - d),
            _mm512_div_ps(_mm512_load_ps(states_[r].out + d), sum));
      }
    }
    n_rows_ = 0;
    n_positions_ = 0;
  }

 private:
  // How many rows from `r` on share loads: 8, 4, 2 or 1 of one head.
  int RowsTogether(int r) const {
    int n = 1;
    while (n < 8 && r + n < n_rows_ && kv_heads_[r + n] == kv_heads_[r]) ++n;
    return n >= 8 ? 8 : n >= 4 ? 4 : n >= 2 ? 2 : 1;
  }

  // Of a row's head; of the sequence's beginning where there is no such chunk.
  KvChunk ChunkOf(int r, int begin) const {
    return MakeKvChunk(args_, kv_heads_[r], begin < n_positions_ ? begin : 0,
                       n_positions_);
  }

  void AddChunkToRows(const KvChunk& chunk, const KvChunk& next, int r, int n,
                      int begin) {
    const Row* const rows = rows_ + r;
    State* const states = states_ + r;
    if (rows[n - 1].n_positions <= begin) return;
    switch (n) {
      case 8:
        return AddChunk<8>(args_, chunk, next, rows, begin, states);
      case 4:
        return AddChunk<4>(args_, chunk, next, rows, begin, states);
      case 2:
        return AddChunk<2>(args_, chunk, next, rows, begin, states);
      default:
        return AddChunk<1>(args_, chunk, next, rows, begin, states);
    }
  }

  const AttentionArgs& args_;
  int n_rows_ = 0;
  int n_positions_ = 0;  // of the row that sees most
  Row rows_[kMaxRows];
  int kv_heads_[kMaxRows];
  State states_[kMaxRows];
};

}  // namespace

void Attend(const AttentionArgs& args, int head_begin, int head_end, float* y) {
  RowBatch batch(args);
  VisitAttentionRows(
      args, head_begin, head_end, y,
      [&](int kv_head, const Row& row) { batch.Add(kv_head, row); },
      [](int) {});
  batch.Attend();
}

}  // namespace tern::avx512
