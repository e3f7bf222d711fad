#ifndef KERNELS_CUDA_TERNARY_BLOCK_H_
#define KERNELS_CUDA_TERNARY_BLOCK_H_

#include <cstdint>

#include "kernels/cuda/simt.h"
#include "kernels/cuda/ternary_matmul_args.h"
#include "kernels/cuda/ternary_tiles.h"

namespace tern {

// What blocks of the kernels that multiply by tensor cores have in common: how
// weights and activations come to shared memory and sums leave.
//
// A block computes kRows rows for kTokens tokens over a slice of the columns.
// Its warps stand kWarpsOfRows x kWarpsOfTokens; each has kRowTiles x
// kTokenTiles fragments of 16 rows x 8 tokens. Weights and activations of 128
// columns at a time lie in one of kStages stages of shared memory.
//
// When column_splits > 1, the blocks of one output add their sums in
// partial_sums; the last to arrive writes the outputs and leaves zeros.
// Integer sums: neither order nor number of splits changes a bit.
//
// Shape: grid_x = ceil(n_out / kRows), grid_y = ceil(n_tokens / kTokens),
// grid_z = column_splits.
template <int kRowTiles, int kTokenTiles, int kWarpsOfRows, int kWarpsOfTokens,
          int kStages>
struct TernaryBlock {
  static constexpr int kRows = kTileRows * kRowTiles * kWarpsOfRows;
  static constexpr int kTokens = 8 * kTokenTiles * kWarpsOfTokens;
  static constexpr int kThreads =
      simt::kWarpSize * kWarpsOfRows * kWarpsOfTokens;
  // Of a stage: weights, then 128 columns of each token.
  static constexpr int kWeightBytes = kRows / kTileRows * kTileBytes;
  static constexpr int kStageBytes = kWeightBytes + kTokens * kTileColumns;
  static constexpr int kSharedBytes = kStages * kStageBytes;
  static constexpr int kChunks = kTileColumns / 16;  // of a token's columns
  // Fetch() counts on it.
  static_assert(kRows / kTileRows % (kThreads / simt::kWarpSize) == 0);
  static_assert(kThreads / kChunks % 8 == 0);
  using Args = TernaryMatmulArgs;
  // Of a thread, as those of mma.m16n8k32. Rows g + 8 are four times as large.
  using Sums = int32_t[kRowTiles][kTokenTiles][4];

  // The tiles of the block's slice.
  SIMT_DEVICE static int FirstTile(const Args& args) {
    return ColumnTiles(args.n_in) * simt::BlockZ() / simt::GridZ();
  }
  SIMT_DEVICE static int EndTile(const Args& args) {
    return ColumnTiles(args.n_in) * (simt::BlockZ() + 1) / simt::GridZ();
  }

  SIMT_DEVICE static uint8_t* Stage(int stage) {
    return simt::SharedMemory() + stage * kStageBytes;
  }

  // Chunks of 16 bytes are permuted within a token's 128, so that the eight
  // rows of a matrix that ldmatrix reads lie in different banks.
  SIMT_DEVICE static int ActivationOffset(int token, int chunk) {
    return kWeightBytes + token * kTileColumns + (chunk ^ (token % 8)) * 16;
  }

  // Begins to copy column tile `tile` to `stage`. A thread copies the same
  // place of rows that are evenly apart: little arithmetic for each copy.
  SIMT_DEVICE static void Fetch(const Args& args, int tile, int stage) {
    constexpr int kWarps = kThreads / simt::kWarpSize;
    uint8_t* const to = Stage(stage);
    const int lane = simt::LaneIndex();
    const int warp = simt::WarpIndex();
    const int n_tiles = ColumnTiles(args.n_in);
    const int first_row_tile = simt::BlockX() * (kRows / kTileRows) + warp;
    const simt::Words4* weights =
        args.tiles +
        (static_cast<int64_t>(first_row_tile) * n_tiles + tile) * 32 + lane;
    SIMT_UNROLL
    for (int i = 0; i < kRows / kTileRows; i += kWarps) {
      const bool valid = first_row_tile + i < RowTiles(args.n_out);
      simt::CopyAsync(to + (i + warp) * kTileBytes + lane * 16, weights, valid);
      weights += kWarps * 32 * n_tiles;
    }

    constexpr int kTokenStep = kThreads / kChunks;
    const int chunk = simt::ThreadIndex() % kChunks;
    const int first = simt::ThreadIndex() / kChunks;
    const int column = tile * kTileColumns + chunk * 16;
    const int tokens_left = args.n_tokens - simt::BlockY() * kTokens;
    const int8_t* q =
        args.q +
        static_cast<int64_t>(simt::BlockY() * kTokens + first) * args.n_in +
        column;
    uint8_t* const to_token = to + ActivationOffset(first, chunk);
    SIMT_UNROLL
    for (int i = 0; i < kTokens; i += kTokenStep) {
      if (first + i < kTokens) {
        simt::CopyAsync(to_token + i * kTileColumns, q,
                        column < args.n_in && first + i < tokens_left);
      }
      q += kTokenStep * args.n_in;
    }
  }

  // Writes the outputs, or adds to what the other blocks of them have found.
  SIMT_DEVICE static void Finish(const Args& args, const Sums& sums) {
    if (args.column_splits > 1) {
      MeetAndStore(args, sums);
      return;
    }
    ForEachOutput(args, sums, [&args](int token, int row, int32_t sum) {
      StoreTernaryOutput(args, token, row, sum);
    });
  }

 private:
  // Calls visit(token, row, sum) for every output of this thread.
  template <typename Visit>
  SIMT_DEVICE static void ForEachOutput(const Args& args, const Sums& sums,
                                        Visit visit) {
    const int lane = simt::LaneIndex();
    const int warp_row = simt::WarpIndex() % kWarpsOfRows;
    const int warp_token = simt::WarpIndex() / kWarpsOfRows;
    SIMT_UNROLL
    for (int t = 0; t < kTokenTiles; ++t) {
      SIMT_UNROLL
      for (int i = 0; i < 4; ++i) {
        const int token = simt::BlockY() * kTokens +
                          (warp_token * kTokenTiles + t) * 8 + lane % 4 * 2 +
                          i % 2;
        SIMT_UNROLL
        for (int r = 0; r < kRowTiles; ++r) {
          const int row = simt::BlockX() * kRows +
                          (warp_row * kRowTiles + r) * kTileRows + lane / 4 +
                          i / 2 * 8;
          // Rows g + 8 were multiplied by four.
          const int32_t sum = i < 2 ? sums[r][t][i] : sums[r][t][i] >> 2;
          if (token < args.n_tokens && row < args.n_out) {
            visit(token, row, sum);
          }
        }
      }
    }
  }

  // Adds to what the other blocks of these outputs have found; the last one to
  // do so stores the outputs.
  SIMT_DEVICE static void MeetAndStore(const Args& args, const Sums& sums) {
    int32_t* const partial = args.partial_sums;
    const int64_t stride = args.n_out;
    ForEachOutput(args, sums,
                  [partial, stride](int token, int row, int32_t sum) {
                    simt::AtomicAdd(&partial[token * stride + row], sum);
                  });
    simt::ThreadFence();
    simt::SyncThreads();
    int32_t* const arrivals =
        args.arrivals + simt::BlockY() * simt::GridX() + simt::BlockX();
    auto* const before = reinterpret_cast<int32_t*>(simt::SharedMemory());
    if (simt::ThreadIndex() == 0) {
      simt::StoreShared(before, simt::AtomicAdd(arrivals, 1));
    }
    simt::SyncThreads();
    if (simt::LoadShared(before) + 1 != args.column_splits) return;
    simt::ThreadFence();
    ForEachOutput(
        args, sums, [&args, partial, stride](int token, int row, int32_t) {
          int32_t* const at = &partial[token * stride + row];
          StoreTernaryOutput(args, token, row, simt::LoadCoherent(at));
          simt::Store(at, 0);
        });
    if (simt::ThreadIndex() == 0) simt::Store(arrivals, 0);
  }
};

}  // namespace tern

#endif  // KERNELS_CUDA_TERNARY_BLOCK_H_
