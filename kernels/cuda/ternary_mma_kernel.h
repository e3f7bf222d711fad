#ifndef KERNELS_CUDA_TERNARY_MMA_KERNEL_H_
#define KERNELS_CUDA_TERNARY_MMA_KERNEL_H_

#include <cstdint>

#include "kernels/cuda/simt.h"
#include "kernels/cuda/ternary_matmul_args.h"
#include "kernels/cuda/ternary_tiles.h"
#include "kernels/cuda/ternary_unpack.h"

namespace tern {

// TernaryMatmulArgs by mma.m16n8k32, u8 x s8, on every target.
//
// A block computes kRows rows for kTokens tokens over a slice of the columns.
// Its warps stand kWarpsOfRows x kWarpsOfTokens; each has kRowTiles x
// kTokenTiles fragments of 16 rows x 8 tokens. Weights and activations of 128
// columns at a time come through a ring of kStages stages of shared memory
// (cp.async); weights are unpacked in registers, 5 operations for 16.
//
// When column_splits > 1, the blocks of one output add their sums in
// partial_sums; the last to arrive writes the outputs and leaves zeros.
// Integer sums: neither order nor number of splits changes a bit.
//
// Shape: grid_x = ceil(n_out / kRows), grid_y = ceil(n_tokens / kTokens),
// grid_z = column_splits.
template <int kRowTiles, int kTokenTiles, int kWarpsOfRows, int kWarpsOfTokens,
          int kStages, int kBlocksOfSm>
struct TernaryMmaKernel {
  static constexpr int kRows = kTileRows * kRowTiles * kWarpsOfRows;
  static constexpr int kTokens = 8 * kTokenTiles * kWarpsOfTokens;
  static constexpr int kThreads =
      simt::kWarpSize * kWarpsOfRows * kWarpsOfTokens;
  static constexpr int kBlocksPerSm = kBlocksOfSm;
  // Of a stage: weights, then 128 columns of each token.
  static constexpr int kWeightBytes = kRows / kTileRows * kTileBytes;
  static constexpr int kStageBytes = kWeightBytes + kTokens * kTileColumns;
  static constexpr int kSharedBytes = kStages * kStageBytes;
  static_assert(kTokenTiles == 1 || kTokenTiles % 2 == 0);
  using Args = TernaryMatmulArgs;

  SIMT_DEVICE static void Run(const Args& args) {
    const int n_tiles = ColumnTiles(args.n_in);
    const int begin = n_tiles * simt::BlockZ() / simt::GridZ();
    const int end = n_tiles * (simt::BlockZ() + 1) / simt::GridZ();
    int32_t sums[kRowTiles][kTokenTiles][4] = {};
    SIMT_UNROLL
    for (int stage = 0; stage < kStages - 1; ++stage) {
      if (begin + stage < end) Fetch(args, begin + stage, stage);
      simt::CopyAsyncCommit();
    }
    int stage = 0;
    for (int tile = begin; tile < end; ++tile) {
      // This tile is there, and nobody reads the one before any more.
      simt::CopyAsyncWait<kStages - 2>();
      simt::SyncThreads();
      const int next = tile + kStages - 1;
      if (next < end) Fetch(args, next, stage == 0 ? kStages - 1 : stage - 1);
      simt::CopyAsyncCommit();
      Multiply(stage, sums);
      stage = stage + 1 == kStages ? 0 : stage + 1;
    }
    if (args.column_splits == 1) {
      ForEachOutput(args, sums, [&args](int token, int row, int32_t sum) {
        StoreTernaryOutput(args, token, row, sum);
      });
    } else {
      MeetAndStore(args, sums);
    }
  }

 private:
  static constexpr int kChunks = kTileColumns / 16;  // of a token's columns

  // Chunks of 16 bytes are permuted within a token's 128, so that the eight
  // rows of a matrix that ldmatrix reads lie in different banks.
  SIMT_DEVICE static int ActivationOffset(int token, int chunk) {
    return kWeightBytes + token * kTileColumns + (chunk ^ (token % 8)) * 16;
  }

  // Begins to copy column tile `tile` to `stage`.
  SIMT_DEVICE static void Fetch(const Args& args, int tile, int stage) {
    uint8_t* const to = simt::SharedMemory() + stage * kStageBytes;
    const int n_tiles = ColumnTiles(args.n_in);
    for (int i = simt::ThreadIndex(); i < kWeightBytes / 16; i += kThreads) {
      const int row_tile = simt::BlockX() * (kRows / kTileRows) + i / 32;
      const bool valid = row_tile < RowTiles(args.n_out);
      const int64_t from =
          valid
              ? (static_cast<int64_t>(row_tile) * n_tiles + tile) * 32 + i % 32
              : 0;
      simt::CopyAsync(to + i * 16, args.tiles + from, valid);
    }
    for (int i = simt::ThreadIndex(); i < kTokens * kChunks; i += kThreads) {
      const int token = i / kChunks;
      const int chunk = i % kChunks;
      const int of_all = simt::BlockY() * kTokens + token;
      const int column = tile * kTileColumns + chunk * 16;
      const bool valid = of_all < args.n_tokens && column < args.n_in;
      const int64_t from =
          valid ? static_cast<int64_t>(of_all) * args.n_in + column : 0;
      simt::CopyAsync(to + ActivationOffset(token, chunk), args.q + from,
                      valid);
    }
  }

  // Adds the products of the tile in `stage` to the warp's sums.
  SIMT_DEVICE static void Multiply(int stage,
                                   int32_t (&sums)[kRowTiles][kTokenTiles][4]) {
    const uint8_t* const from = simt::SharedMemory() + stage * kStageBytes;
    const int lane = simt::LaneIndex();
    const int warp_row = simt::WarpIndex() % kWarpsOfRows;
    const int warp_token = simt::WarpIndex() / kWarpsOfRows;
    uint32_t weights[kRowTiles][4];  // of 128 columns
    SIMT_UNROLL
    for (int r = 0; r < kRowTiles; ++r) {
      const simt::Words4 words =
          simt::LoadShared(reinterpret_cast<const simt::Words4*>(
              from + (warp_row * kRowTiles + r) * kTileBytes + lane * 16));
      weights[r][0] = words.x;
      weights[r][1] = words.y;
      weights[r][2] = words.z;
      weights[r][3] = words.w;
    }
    SIMT_UNROLL
    for (int k = 0; k < kTileColumns / 32; ++k) {
      uint32_t b[kTokenTiles][2];
      LoadTokens(from, warp_token * kTokenTiles * 8, k, b);
      SIMT_UNROLL
      for (int r = 0; r < kRowTiles; ++r) {
        uint32_t a[4];
        UnpackTernary(weights[r][k], a);
        SIMT_UNROLL
        for (int t = 0; t < kTokenTiles; ++t) {
          simt::MmaU8S8(sums[r][t], a, b[t]);
        }
      }
    }
  }

  // Columns 32 * k .. 32 * k + 31 of the warp's tokens, as B fragments.
  SIMT_DEVICE static void LoadTokens(const uint8_t* from, int first_token,
                                     int k, uint32_t (&b)[kTokenTiles][2]) {
    const int lane = simt::LaneIndex();
    if constexpr (kTokenTiles == 1) {
      // Lanes 0..7: columns 0..15 of tokens 0..7; 8..15: columns 16..31.
      simt::LoadMatrix(b[0], from + ActivationOffset(first_token + lane % 8,
                                                     2 * k + lane / 8 % 2));
    } else {
      // The same for lanes 16..31 and tokens 8..15.
      SIMT_UNROLL
      for (int t = 0; t < kTokenTiles; t += 2) {
        uint32_t m[4];
        const int token = first_token + t * 8 + lane / 16 * 8 + lane % 8;
        simt::LoadMatrix(m,
                         from + ActivationOffset(token, 2 * k + lane / 8 % 2));
        b[t][0] = m[0];
        b[t][1] = m[1];
        b[t + 1][0] = m[2];
        b[t + 1][1] = m[3];
      }
    }
  }

  // Calls visit(token, row, sum) for every output of this thread.
  template <typename Visit>
  SIMT_DEVICE static void ForEachOutput(
      const Args& args, const int32_t (&sums)[kRowTiles][kTokenTiles][4],
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
  SIMT_DEVICE static void MeetAndStore(
      const Args& args, const int32_t (&sums)[kRowTiles][kTokenTiles][4]) {
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

// By the most tokens that a block takes. A few rows and many stages where
// weights are most of what is read; many rows to a warp where tokens are.
using TernaryMma8 = TernaryMmaKernel<1, 1, 4, 1, 6, 4>;
using TernaryMma16 = TernaryMmaKernel<1, 2, 4, 1, 6, 4>;
using TernaryMma32 = TernaryMmaKernel<2, 4, 4, 1, 4, 3>;
using TernaryMma64 = TernaryMmaKernel<2, 8, 4, 1, 4, 3>;
using TernaryMma128 = TernaryMmaKernel<4, 8, 2, 2, 4, 2>;

}  // namespace tern

#endif  // KERNELS_CUDA_TERNARY_MMA_KERNEL_H_
