#ifndef KERNELS_CUDA_ATTENTION_KERNEL_H_
#define KERNELS_CUDA_ATTENTION_KERNEL_H_

#include <cstdint>

#include "kernels/attention.h"
#include "kernels/cuda/attention_batch.h"
#include "kernels/cuda/exact_math.h"
#include "kernels/cuda/simt.h"

namespace tern::cuda {

// AttentionBatch, by warps that do not wait for each other. A warp takes a tile
// of up to kTileRows rows, each a query token and one of the query heads that
// share a key-value head, and passes over the chunks of 64 positions from left
// to right, or over one of them (args.partials).
//
// In a chunk it makes two products, both of which the CPU adds up in the same
// order: scores[row][position] over the elements of a head, and
// out[row][element] over the positions. Their 64 columns lie side by side in
// the lanes, whose sums are chains of Fma(); only how many rows and columns a
// lane has differs between tiles.
//
//   BlockX * warps + warp   run and its tile of rows
//   BlockY                  key-value head
//   BlockZ                  chunk, with args.partials
template <int kRowLanesValue, int kRowsValue>
struct AttentionKernel {
  static constexpr int kThreads = 128;
  static constexpr int kBlocksPerSm = 4;
  using Args = AttentionBatch;

  // Lanes lie in kRowLanes rows of kColumnLanes; each has kRows * kColumns
  // sums of a tile of kTileRows * 64.
  static constexpr int kRowLanes = kRowLanesValue;
  static constexpr int kRows = kRowsValue;
  static constexpr int kColumnLanes = simt::kWarpSize / kRowLanes;
  static constexpr int kTileColumns = kAttentionChunk;
  static constexpr int kColumns = kTileColumns / kColumnLanes;
  static constexpr int kTileRows = kRowLanes * kRows;
  // From an element of a transposed matrix in shared memory to the next: with
  // more rows, so much more that fewer lanes write to one bank.
  static constexpr int kStride = kTileRows < 16 ? kTileRows : kTileRows + 4;
  // Lanes that make the softmax of a row together.
  static constexpr int kSoftmaxLanes =
      simt::kWarpSize / kTileRows < 16 ? simt::kWarpSize / kTileRows : 16;
  static constexpr int kPartials = 16 / kSoftmaxLanes;  // sums of each
  // Steps whose keys, or values, are loaded together, ahead of their use.
  static constexpr int kAhead = 32 / kColumns;
  static_assert(kColumns == 2 || kColumns == 4, "one load");
  static_assert(kKvBlockSize % kAhead == 0 && kKvBlockSize % kColumns == 0);

  // Shared memory of a warp, float:
  //   q        [head_dim][kStride]      transposed
  //   weights  [64][kStride]            scores, then weights; transposed
  //   state    [kTileRows][4]           maximum, sum, and both merge factors
  //   out      [kTileRows][head_dim]    of the chunks so far
  static constexpr int kStateFloats = 4;
  // together, for each element of a head and beside them:
  static constexpr int kFloatsPerElement = kStride + kTileRows;
  static constexpr int kMoreFloats =
      kAttentionChunk * kStride + kTileRows * kStateFloats;

  SIMT_DEVICE static void Run(const Args& a) {
    const int group = a.n_heads / a.n_kv_heads;
    const int tiles = (a.run_tokens_max * group + kTileRows - 1) / kTileRows;
    const int n_tasks = a.n_runs * tiles;
    const int warps = simt::ThreadCount() / simt::kWarpSize;
    const int task = simt::BlockX() * warps + simt::WarpIndex();
    if (task >= n_tasks) return;
    // The last tokens of a prompt see most and begin first.
    const int from_end = n_tasks - 1 - task;
    AttentionKernel(a, group, simt::Load(&a.runs[from_end / tiles]),
                    from_end % tiles * kTileRows)
        .Attend();
  }

 private:
  SIMT_DEVICE AttentionKernel(const Args& args, int heads_per_kv_head,
                              const AttentionRun& its_run, int tile_row)
      : a(args),
        run(its_run),
        group(heads_per_kv_head),
        kv_head(simt::BlockY()),
        first_row(tile_row) {
    const int rows_left = run.n_tokens * group - first_row;
    n_rows = rows_left < kTileRows ? rows_left : kTileRows;

    q = reinterpret_cast<float*>(simt::SharedMemory()) +
        simt::WarpIndex() * (a.head_dim * kFloatsPerElement + kMoreFloats);
    weights = q + a.head_dim * kStride;
    state = weights + kAttentionChunk * kStride;
    out = state + kTileRows * kStateFloats;
    lane_row = simt::LaneIndex() / kColumnLanes * kRows;
    lane_column = simt::LaneIndex() % kColumnLanes * kColumns;
    // With one row, the other half of the warp stands at one that sees nothing.
    softmax_row = simt::LaneIndex() / kSoftmaxLanes;
    softmax_sees = PositionsSeenBy(softmax_row);
    SIMT_UNROLL
    for (int r = 0; r < kRows; ++r) sees[r] = PositionsSeenBy(lane_row + r);
  }

  // The token, and the query head, of a row of the tile.
  SIMT_DEVICE int64_t TokenOf(int row) const {
    return run.first_token + (first_row + row) / group;
  }
  SIMT_DEVICE int64_t HeadOf(int row) const {
    return kv_head * group + (first_row + row) % group;
  }
  // 0 where there is no row.
  SIMT_DEVICE int PositionsSeenBy(int row) const {
    return row < n_rows ? run.n_positions + (first_row + row) / group : 0;
  }
  // Of n positions, those in the chunk that starts at `begin`.
  SIMT_DEVICE static int InChunk(int n, int begin) {
    n -= begin;
    return n < 0 ? 0 : n < kAttentionChunk ? n : kAttentionChunk;
  }

  SIMT_DEVICE void Attend() {
    if (n_rows <= 0) return;
    const int n_positions = PositionsSeenBy(n_rows - 1);
    const bool one_chunk = a.partials != nullptr;
    const int first_chunk = one_chunk ? simt::BlockZ() * kAttentionChunk : 0;
    if (first_chunk >= n_positions) return;

    LoadQueries();
    int begin = first_chunk;
    do {
      AttendChunk(begin, begin == first_chunk, n_positions);
      begin += kAttentionChunk;
    } while (begin < n_positions && !one_chunk);
    for (int row = 0; row < n_rows; ++row) {
      if (one_chunk) {
        StorePartial(first_chunk, row);
      } else {
        StoreResult(row);
      }
    }
  }

  SIMT_DEVICE void LoadQueries() {
    for (int row = 0; row < kTileRows; ++row) {
      for (int d = simt::LaneIndex(); d < a.head_dim; d += simt::kWarpSize) {
        float value = 0.0f;
        if (row < n_rows) {
          value = simt::Load(a.q + TokenOf(row) * a.q_stride +
                             HeadOf(row) * a.head_dim + d);
        }
        simt::StoreShared(q + d * kStride + row, value);
      }
    }
    simt::SyncWarp();
  }

  SIMT_DEVICE void AttendChunk(int begin, bool is_first, int n_positions) {
    const int32_t* const table =
        a.block_tables + run.table_begin + begin / kKvBlockSize;
    const int n_blocks =
        (n_positions - begin + kKvBlockSize - 1) / kKvBlockSize;
    Scores(table, n_blocks);
    simt::SyncWarp();
    Softmax(begin, is_first);
    simt::SyncWarp();
    for (int column = 0; column < a.head_dim; column += kTileColumns) {
      Values(table, begin, is_first, column + lane_column);
    }
    // Before the next chunk's scores replace the weights.
    simt::SyncWarp();
  }

  SIMT_DEVICE int64_t HeadOffset(int32_t block) const {
    return (static_cast<int64_t>(block) * a.n_kv_heads + kv_head) *
           (a.head_dim * kKvBlockSize);
  }

  using Sums = float[kRows][kColumns];

  // sums[r][c] += the sum over k in [begin, end) of left[k][r] * right[k][c],
  // one k after the other. Row r takes part below limit[r] if kLimited.
  template <bool kLimited>
  SIMT_DEVICE void Accumulate(const float* left, const uint16_t* right,
                              int right_stride, int begin, int end,
                              const int (&limit)[kRows], Sums& sums) const {
    int k = begin;
    Halves next[kAhead];
    if (k + kAhead <= end) LoadAhead(right, right_stride, k, next);
    while (k + kAhead <= end) {
      Halves now[kAhead];
      SIMT_UNROLL
      for (int i = 0; i < kAhead; ++i) now[i] = next[i];
      if (k + 2 * kAhead <= end) {
        LoadAhead(right, right_stride, k + kAhead, next);
      }
      SIMT_UNROLL
      for (int i = 0; i < kAhead; ++i) {
        AddProducts<kLimited>(left + (k + i) * kStride, now[i], k + i, limit,
                              sums);
      }
      k += kAhead;
    }
    for (; k < end; ++k) {
      AddProducts<kLimited>(left + k * kStride,
                            LoadHalves(right + k * right_stride), k, limit,
                            sums);
    }
  }

  // float16 of the columns of a lane.
  struct alignas(2 * kColumns) Halves {
    uint16_t of[kColumns];
  };
  SIMT_DEVICE static Halves LoadHalves(const uint16_t* global) {
    return simt::Load(reinterpret_cast<const Halves*>(global));
  }
  SIMT_DEVICE static void LoadAhead(const uint16_t* right, int right_stride,
                                    int k, Halves (&next)[kAhead]) {
    SIMT_UNROLL
    for (int i = 0; i < kAhead; ++i) {
      next[i] = LoadHalves(right + (k + i) * right_stride);
    }
  }

  // Of the rows of a lane.
  static constexpr int kVector = kRows < 4 ? kRows : 4;
  struct alignas(sizeof(float) * kVector) Floats {
    float v[kVector];
  };

  template <bool kLimited>
  SIMT_DEVICE static void AddProducts(const float* left, const Halves& right,
                                      int k, const int (&limit)[kRows],
                                      Sums& sums) {
    float b[kColumns];
    SIMT_UNROLL
    for (int c = 0; c < kColumns; ++c) b[c] = simt::HalfToFloat(right.of[c]);
    SIMT_UNROLL
    for (int first = 0; first < kRows; first += kVector) {
      const Floats values =
          simt::LoadShared(reinterpret_cast<const Floats*>(left + first));
      SIMT_UNROLL
      for (int i = 0; i < kVector; ++i) {
        if (kLimited && k >= limit[first + i]) continue;
        SIMT_UNROLL
        for (int c = 0; c < kColumns; ++c) {
          sums[first + i][c] = simt::Fma(values.v[i], b[c], sums[first + i][c]);
        }
      }
    }
  }

  SIMT_DEVICE static void Clear(Sums& sums) {
    SIMT_UNROLL
    for (int r = 0; r < kRows; ++r) {
      SIMT_UNROLL
      for (int c = 0; c < kColumns; ++c) sums[r][c] = 0.0f;
    }
  }

  // Scores of all 64 positions. Those beyond the last one are not used; their
  // keys are whatever lies in the chunk's blocks, of which the first stands for
  // those that do not exist.
  SIMT_DEVICE void Scores(const int32_t* table, int n_blocks) {
    const int in_chunk = lane_column / kKvBlockSize;
    const int32_t block =
        simt::Load(&table[in_chunk < n_blocks ? in_chunk : 0]);
    const uint16_t* const keys =
        a.k_pool + HeadOffset(block) + lane_column % kKvBlockSize;
    Sums sums;
    Clear(sums);
    const int unlimited[kRows] = {};
    Accumulate<false>(q + lane_row, keys, kKvBlockSize, 0, a.head_dim,
                      unlimited, sums);
    SIMT_UNROLL
    for (int c = 0; c < kColumns; ++c) {
      float* const to = weights + (lane_column + c) * kStride + lane_row;
      SIMT_UNROLL
      for (int first = 0; first < kRows; first += kVector) {
        Floats values;
        SIMT_UNROLL
        for (int i = 0; i < kVector; ++i) {
          values.v[i] = sums[first + i][c] * a.scale;
        }
        simt::StoreShared(reinterpret_cast<Floats*>(to + first), values);
      }
    }
  }

  // Turns the scores of each row into weights and merges their maximum and sum
  // into the row's state. Lane i of a row's kSoftmaxLanes has positions i, i +
  // kSoftmaxLanes, ..., and so whole lanes of the canonical sum.
  SIMT_DEVICE void Softmax(int begin, bool is_first) {
    const int lane = simt::LaneIndex() % kSoftmaxLanes;
    float* const p = weights + softmax_row;
    const int n = InChunk(softmax_sees, begin);

    float max = -Infinity();
    for (int j = lane; j < n; j += kSoftmaxLanes) {
      max = MaxOf(simt::LoadShared(p + j * kStride), max);
    }
    SIMT_UNROLL
    for (int mask = kSoftmaxLanes / 2; mask >= 1; mask /= 2) {
      max = MaxOf(simt::ShuffleXor(max, mask), max);
    }

    float partial[kPartials];
    SIMT_UNROLL
    for (int i = 0; i < kPartials; ++i) partial[i] = 0.0f;
    for (int first = 0; first < n; first += 16) {
      SIMT_UNROLL
      for (int i = 0; i < kPartials; ++i) {
        const int j = first + i * kSoftmaxLanes + lane;
        if (j >= n) continue;
        const float weight = Exp(simt::LoadShared(p + j * kStride) - max);
        simt::StoreShared(p + j * kStride, weight);
        partial[i] = partial[i] + weight;
      }
    }
    const float sum = TreeSum(partial);
    if (lane != 0) return;
    MergeState(state + softmax_row * kStateFloats, max, sum, is_first, n > 0);
  }

  // The tree of section 2, element i * kSoftmaxLanes + lane being partial[i].
  template <int kWidth = 8>
  SIMT_DEVICE static float TreeSum(float (&partial)[kPartials]) {
    constexpr int kDistance = kWidth / kSoftmaxLanes;
    if constexpr (kDistance >= 1) {
      SIMT_UNROLL
      for (int i = 0; i < kDistance; ++i) {
        partial[i] = partial[i] + partial[i + kDistance];
      }
    } else {
      partial[0] = partial[0] + simt::ShuffleXor(partial[0], kWidth);
    }
    if constexpr (kWidth > 1) return TreeSum<kWidth / 2>(partial);
    return partial[0];
  }

  // state: maximum, sum, factor of the old values, factor of the new ones.
  SIMT_DEVICE static void MergeState(float* state, float max, float sum,
                                     bool is_first, bool sees_any) {
    if (!sees_any) return;
    if (is_first) {
      simt::StoreShared(state, max);
      simt::StoreShared(state + 1, sum);
      return;
    }
    const float old_max = simt::LoadShared(state);
    const float merged = MaxOf(max, old_max);
    const float old_factor = Exp(old_max - merged);
    const float new_factor = Exp(max - merged);
    const float old_sum = simt::LoadShared(state + 1);
    simt::StoreShared(state, merged);
    simt::StoreShared(state + 1,
                      simt::Fma(old_sum, old_factor, sum * new_factor));
    simt::StoreShared(state + 2, old_factor);
    simt::StoreShared(state + 3, new_factor);
  }

  // Merges the weighted values of columns [column, column + kColumns) into out.
  SIMT_DEVICE void Values(const int32_t* table, int begin, bool is_first,
                          int column) {
    if (column >= a.head_dim) return;
    int visible[kRows];
    int least = kAttentionChunk;
    int most = 0;
    SIMT_UNROLL
    for (int r = 0; r < kRows; ++r) {
      visible[r] = InChunk(sees[r], begin);
      if (visible[r] > most) most = visible[r];
      if (visible[r] < least && sees[r] > 0) least = visible[r];
    }
    Sums sums;
    Clear(sums);
    for (int first = 0; first < most; first += kKvBlockSize) {
      const int32_t block = simt::Load(&table[first / kKvBlockSize]);
      // So that position k of the chunk is row k.
      const uint16_t* const values = a.v_pool + HeadOffset(block) + column -
                                     static_cast<int64_t>(first) * a.head_dim;
      const int end = first + kKvBlockSize < most ? first + kKvBlockSize : most;
      const int common = least < first ? first : least < end ? least : end;
      Accumulate<false>(weights + lane_row, values, a.head_dim, first, common,
                        visible, sums);
      Accumulate<true>(weights + lane_row, values, a.head_dim, common, end,
                       visible, sums);
    }
    SIMT_UNROLL
    for (int r = 0; r < kRows; ++r) {
      if (visible[r] == 0) continue;
      const int row = lane_row + r;
      float* const to = out + row * a.head_dim + column;
      MergeValues(state + row * kStateFloats, is_first, sums[r], to);
    }
  }

  SIMT_DEVICE static void MergeValues(const float* state, bool is_first,
                                      const float (&sums)[kColumns],
                                      float* to) {
    struct alignas(sizeof(float) * kColumns) Columns {
      float v[kColumns];
    };
    auto* const at = reinterpret_cast<Columns*>(to);
    Columns merged;
    if (is_first) {
      SIMT_UNROLL
      for (int c = 0; c < kColumns; ++c) merged.v[c] = sums[c];
    } else {
      const float old_factor = simt::LoadShared(state + 2);
      const float new_factor = simt::LoadShared(state + 3);
      const Columns old = simt::LoadShared(at);
      SIMT_UNROLL
      for (int c = 0; c < kColumns; ++c) {
        merged.v[c] = simt::Fma(old.v[c], old_factor, sums[c] * new_factor);
      }
    }
    simt::StoreShared(at, merged);
  }

  SIMT_DEVICE void StoreResult(int row) const {
    const float sum = simt::LoadShared(state + row * kStateFloats + 1);
    float* const to =
        a.y + (TokenOf(row) * a.n_heads + HeadOf(row)) * a.head_dim;
    for (int d = simt::LaneIndex(); d < a.head_dim; d += simt::kWarpSize) {
      const float value = simt::LoadShared(out + row * a.head_dim + d);
      simt::Store(to + d, simt::Divide(value, sum));
    }
  }

  SIMT_DEVICE void StorePartial(int begin, int row) const {
    if (InChunk(PositionsSeenBy(row), begin) == 0) return;
    const int64_t rows = static_cast<int64_t>(a.n_tokens) * a.n_heads;
    float* const to = a.partials + (begin / kAttentionChunk * rows +
                                    TokenOf(row) * a.n_heads + HeadOf(row)) *
                                       (a.head_dim + kAttentionPartialExtra);
    for (int d = simt::LaneIndex(); d < a.head_dim; d += simt::kWarpSize) {
      simt::Store(to + d, simt::LoadShared(out + row * a.head_dim + d));
    }
    if (simt::LaneIndex() >= 2) return;
    const int i = simt::LaneIndex();
    simt::Store(to + a.head_dim + i,
                simt::LoadShared(state + row * kStateFloats + i));
  }

  const Args& a;
  AttentionRun run;
  int group;  // query heads that share a key-value head
  int kv_head;
  int first_row;  // of the run's rows, each a token and a head of the group
  int n_rows;     // of the tile that exist
  float* q;
  float* weights;
  float* state;
  float* out;
  int lane_row;  // of the lane's sums
  int lane_column;
  int sees[kRows];  // positions, by each of the lane's rows
  int softmax_row;
  int softmax_sees;
};

// The kernels that there are, by the rows of their tiles.
inline constexpr int kAttentionTileRows[] = {1, 2, 4, 8, 16};

template <int kTileRows>
struct AttentionTile {
  using Kernel = AttentionKernel<1, kTileRows>;
};
template <>
struct AttentionTile<16> {
  using Kernel = AttentionKernel<2, 8>;
};

}  // namespace tern::cuda

#endif  // KERNELS_CUDA_ATTENTION_KERNEL_H_
