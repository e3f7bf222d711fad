#include <immintrin.h>

#include "kernels/attention_chunk.h"
#include "kernels/avx2.h"
#include "kernels/float16.h"
#include "kernels/lanes_avx2.h"

namespace tern::avx2 {
namespace {

constexpr int kMaxHeadDim = 256;
// Rows, each a query and a query head, that share the loads of one key-value
// head.
constexpr int kMaxRows = 2;

using Row = AttentionRow;

// The softmax of the positions so far of one row, before the division.
struct State {
  float max;
  float sum;
  float out[kMaxHeadDim];
};

__m256 LoadHalf8(const uint16_t* at) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at)));
}

// scores[r][j] of the 64 positions of a chunk, used or not. Each key is one
// lane, which adds over d in order. Meanwhile the next chunk comes to the
// cache: blocks are too short and too far apart for the hardware to foresee.
template <int kRows>
void Scores(const KvChunk& chunk, const KvChunk& next, const Row* rows,
            int head_dim, float scale, float (*scores)[kAttentionChunk]) {
  for (int pair = 0; pair < kBlocksPerChunk; pair += 2) {
    __m256 acc[kRows][4];
#pragma GCC unroll 2
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) acc[r][i] = _mm256_setzero_ps();
    }
    const uint16_t* k0 = chunk.k[pair];
    const uint16_t* k1 = chunk.k[pair + 1];
    for (int d = 0; d < head_dim; ++d) {
      // A head has head_dim / 2 cache lines of keys in a block, and of values.
      const uint16_t* const* ahead = d % 2 == 0 ? next.k : next.v;
      _mm_prefetch(ahead[pair] + d / 2 * 32, _MM_HINT_T0);
      _mm_prefetch(ahead[pair + 1] + d / 2 * 32, _MM_HINT_T0);
      const __m256 k[4] = {LoadHalf8(k0 + d * kKvBlockSize),
                           LoadHalf8(k0 + d * kKvBlockSize + 8),
                           LoadHalf8(k1 + d * kKvBlockSize),
                           LoadHalf8(k1 + d * kKvBlockSize + 8)};
#pragma GCC unroll 2
      for (int r = 0; r < kRows; ++r) {
        const __m256 qd = _mm256_broadcast_ss(rows[r].q + d);
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) {
          acc[r][i] = _mm256_fmadd_ps(qd, k[i], acc[r][i]);
        }
      }
    }
    // Unrolled as every loop over acc is: else GCC keeps it in memory.
#pragma GCC unroll 2
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
        _mm256_storeu_ps(scores[r] + pair * kKvBlockSize + 8 * i,
                         _mm256_mul_ps(acc[r][i], _mm256_set1_ps(scale)));
      }
    }
  }
}

// Replaces the first n scores by their weights and merges maximum and sum into
// the state.
ChunkFactors Softmax(float* scores, int n, bool first, State* state) {
  const __m256 lowest = _mm256_set1_ps(-__builtin_inff());
  __m256 m = lowest;
  for (int j = 0; j < n; j += 8) {
    const __m256 used = _mm256_castsi256_ps(FirstLanes(n - j));
    const __m256 s =
        _mm256_blendv_ps(lowest, _mm256_loadu_ps(scores + j), used);
    // The second operand is the result when the first is NaN.
    m = _mm256_max_ps(s, m);
  }
  __m128 m4 =
      _mm_max_ps(_mm256_castps256_ps128(m), _mm256_extractf128_ps(m, 1));
  m4 = _mm_max_ps(m4, _mm_movehl_ps(m4, m4));
  const float max = _mm_cvtss_f32(_mm_max_ss(m4, _mm_shuffle_ps(m4, m4, 1)));

  // Weights are never negative, so that adding +0 for an unused position leaves
  // its lane as it is.
  Lanes16 lanes = {_mm256_setzero_ps(), _mm256_setzero_ps()};
  for (int j = 0; j < n; j += 8) {
    const __m256 used = _mm256_castsi256_ps(FirstLanes(n - j));
    const __m256 p = _mm256_and_ps(
        used,
        Exp(_mm256_sub_ps(_mm256_loadu_ps(scores + j), _mm256_set1_ps(max))));
    _mm256_storeu_ps(scores + j, p);
    __m256& lane = j % 16 == 0 ? lanes.low : lanes.high;
    lane = _mm256_add_ps(lane, p);
  }
  const float sum = Total(lanes);
  if (first) {
    state->max = max;
    state->sum = sum;
    return {0.0f, 1.0f};
  }
  const float merged = max > state->max ? max : state->max;
  const __m256 factors =
      Exp(_mm256_sub_ps(_mm256_setr_ps(state->max, max, 0, 0, 0, 0, 0, 0),
                        _mm256_set1_ps(merged)));
  const float a = _mm256_cvtss_f32(factors);
  const float b = _mm256_cvtss_f32(_mm256_permute_ps(factors, 0x55));
  state->max = merged;
  state->sum = __builtin_fmaf(state->sum, a, sum * b);
  return {a, b};
}

// Merges dims [d, d + 8 * kVectors) of the chunk's weighted values into out.
// Row r sees the first n[r] positions, all rows at least n_common.
template <int kRows, int kVectors>
void Values(const KvChunk& chunk, const float (*p)[kAttentionChunk],
            const int* n, int n_common, int head_dim, int d, bool first,
            const ChunkFactors* factors, State* states) {
  __m256 acc[kRows][kVectors];
#pragma GCC unroll 2
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int i = 0; i < kVectors; ++i) acc[r][i] = _mm256_setzero_ps();
  }
  const auto row_at = [&](int j) {
    return chunk.v[j / kKvBlockSize] + j % kKvBlockSize * head_dim + d;
  };
  for (int j = 0; j < n_common; ++j) {
    const uint16_t* const row = row_at(j);
    __m256 v[kVectors];
#pragma GCC unroll 4
    for (int i = 0; i < kVectors; ++i) v[i] = LoadHalf8(row + 8 * i);
#pragma GCC unroll 2
    for (int r = 0; r < kRows; ++r) {
      const __m256 pj = _mm256_broadcast_ss(&p[r][j]);
#pragma GCC unroll 4
      for (int i = 0; i < kVectors; ++i) {
        acc[r][i] = _mm256_fmadd_ps(pj, v[i], acc[r][i]);
      }
    }
  }
#pragma GCC unroll 2
  for (int r = 0; r < kRows; ++r) {
    // The later query of two sees a position more.
    for (int j = n_common; j < n[r]; ++j) {
      const uint16_t* const row = row_at(j);
      const __m256 pj = _mm256_broadcast_ss(&p[r][j]);
#pragma GCC unroll 4
      for (int i = 0; i < kVectors; ++i) {
        acc[r][i] = _mm256_fmadd_ps(pj, LoadHalf8(row + 8 * i), acc[r][i]);
      }
    }
    if (n[r] == 0) continue;
#pragma GCC unroll 4
    for (int i = 0; i < kVectors; ++i) {
      float* out = states[r].out + d + 8 * i;
      __m256 merged = acc[r][i];
      if (!first) {
        merged = _mm256_fmadd_ps(
            _mm256_loadu_ps(out), _mm256_set1_ps(factors[r].old_factor),
            _mm256_mul_ps(merged, _mm256_set1_ps(factors[r].new_factor)));
      }
      _mm256_storeu_ps(out, merged);
    }
  }
}

// The same for one row and the dims that do not fill a vector.
void ValuesTail(const KvChunk& chunk, const float* p, int n, int head_dim,
                int d, bool first, const ChunkFactors& factors, State* state) {
  for (; d < head_dim; ++d) {
    float acc = 0.0f;
    for (int j = 0; j < n; ++j) {
      const uint16_t half =
          chunk.v[j / kKvBlockSize][j % kKvBlockSize * head_dim + d];
      acc = __builtin_fmaf(p[j], _cvtsh_ss(half), acc);
    }
    float& out = state->out[d];
    out = first ? acc
                : __builtin_fmaf(out, factors.old_factor,
                                 acc * factors.new_factor);
  }
}

// Rows of one key-value head, the last of which sees most positions.
template <int kRows>
void AttendRows(const AttentionArgs& a, int kv_head, const Row* rows) {
  const int head_dim = a.head_dim;
  const int n_positions = rows[kRows - 1].n_positions;
  State states[kRows];
  float scores[kRows][kAttentionChunk];
  ChunkFactors factors[kRows];
  int n[kRows];  // positions of the chunk that a row sees
  KvChunk next = MakeKvChunk(a, kv_head, 0, n_positions);
  for (int begin = 0; begin < n_positions; begin += kAttentionChunk) {
    const bool first = begin == 0;
    const KvChunk chunk = next;
    if (begin + kAttentionChunk < n_positions) {
      next = MakeKvChunk(a, kv_head, begin + kAttentionChunk, n_positions);
    }
    Scores<kRows>(chunk, next, rows, head_dim, a.scale, scores);
    for (int r = 0; r < kRows; ++r) {
      const int left = rows[r].n_positions - begin;
      n[r] = left < 0 ? 0 : left < kAttentionChunk ? left : kAttentionChunk;
      if (n[r] > 0) factors[r] = Softmax(scores[r], n[r], first, &states[r]);
    }
    int d = 0;
    for (; d + 32 <= head_dim; d += 32) {
      Values<kRows, 4>(chunk, scores, n, n[0], head_dim, d, first, factors,
                       states);
    }
    for (; d + 8 <= head_dim; d += 8) {
      Values<kRows, 1>(chunk, scores, n, n[0], head_dim, d, first, factors,
                       states);
    }
    for (int r = 0; r < kRows; ++r) {
      if (n[r] == 0) continue;
      ValuesTail(chunk, scores[r], n[r], head_dim, d, first, factors[r],
                 &states[r]);
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int d = 0; d < head_dim; ++d) {
      rows[r].y[d] = states[r].out[d] / states[r].sum;
    }
  }
}

// Eight values saturated to the range of float16; NaN becomes +65504.
__m256 Saturate(__m256 x) {
  // The second operand is the result when the first is NaN.
  const __m256 c = _mm256_min_ps(x, _mm256_set1_ps(65504.0f));
  return _mm256_max_ps(c, _mm256_set1_ps(-65504.0f));
}

__m128i ToHalf8(__m256 x) {
  return _mm256_cvtps_ph(Saturate(x),
                         _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

}  // namespace

void StoreKv(const KvBlockView& block, int slot, const float* k,
             const float* v) {
  const int head_dim = block.head_dim;
  for (int h = 0; h < block.n_kv_heads; ++h) {
    const size_t from = static_cast<size_t>(h) * head_dim;
    uint16_t* k_out = block.k + from * kKvBlockSize + slot;
    uint16_t* v_out =
        block.v + from * kKvBlockSize + static_cast<size_t>(slot) * head_dim;
    int d = 0;
    for (; d + 8 <= head_dim; d += 8) {
      // A key goes to every 16th element: no vector store fits.
      alignas(16) uint16_t halves[8];
      _mm_store_si128(reinterpret_cast<__m128i*>(halves),
                      ToHalf8(_mm256_loadu_ps(k + from + d)));
      for (int i = 0; i < 8; ++i) k_out[(d + i) * kKvBlockSize] = halves[i];
      _mm_storeu_si128(reinterpret_cast<__m128i*>(v_out + d),
                       ToHalf8(_mm256_loadu_ps(v + from + d)));
    }
    for (; d < head_dim; ++d) {
      k_out[d * kKvBlockSize] = SaturatingFloatToHalf(k[from + d]);
      v_out[d] = SaturatingFloatToHalf(v[from + d]);
    }
  }
}

void Attend(const AttentionArgs& args, int head_begin, int head_end, float* y) {
  Row rows[kMaxRows];
  int n_rows = 0;
  VisitAttentionRows(
      args, head_begin, head_end, y,
      [&](int kv_head, const Row& row) {
        rows[n_rows++] = row;
        if (n_rows < kMaxRows) return;
        AttendRows<kMaxRows>(args, kv_head, rows);
        n_rows = 0;
      },
      [&](int kv_head) {
        if (n_rows > 0) AttendRows<1>(args, kv_head, rows);
        n_rows = 0;
      });
}

}  // namespace tern::avx2
