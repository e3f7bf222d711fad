#ifndef KERNELS_CUDA_TERNARY_GEMV_KERNEL_H_
#define KERNELS_CUDA_TERNARY_GEMV_KERNEL_H_

#include <cstdint>

#include "kernels/cuda/simt.h"
#include "kernels/cuda/ternary_matmul_args.h"
#include "kernels/cuda/ternary_tiles.h"

namespace tern {

// TernaryMatmulArgs for kTokens (1 or 2) tokens, by dp4a: bound by the memory
// that weights come from.
//
// Each warp takes one row tile and a slice of its columns: column_splits warps
// of a block share a row tile and add up in shared memory. The weights of its
// first kAhead tiles are under way before anything is waited for (kernels
// before this one, too). Four masks and four dp4a per 16 weights and token; the
// fields' factors 1, 4, 16 and 64 are shifted out of the sums, exactly.
//
// Shape: grid_x = ceil(row tiles * column_splits / warps of a block); the warps
// of a block are a multiple of column_splits.
template <int kTokens>
struct TernaryGemvKernel {
  static constexpr int kThreads = 256;
  static constexpr int kBlocksPerSm = 2;
  static constexpr int kAhead = 8;
  using Args = TernaryMatmulArgs;

  using Scales =
      SharedTernaryScales<kTokens, kThreads / simt::kWarpSize * kTileRows>;

  // Activations, permuted so that a lane finds those of a tile in 32 bytes,
  // then a sum for each row of each warp, then scales.
  static constexpr int SharedBytes(int n_in, int threads) {
    return kTokens * (ColumnTiles(n_in) * kTileColumns +
                      threads / simt::kWarpSize * kTileRows * 4) +
           Scales::kBytes;
  }

  SIMT_DEVICE static void Run(const Args& args) {
    const int lane = simt::LaneIndex();
    const int warp = simt::WarpIndex();
    const int warps = simt::ThreadCount() / simt::kWarpSize;
    const int splits = args.column_splits;
    const int block_row_tiles = warps / splits;
    const int row_tile = simt::BlockX() * block_row_tiles + warp / splits;
    const int n_tiles = ColumnTiles(args.n_in);
    const int slice = warp % splits;
    const bool idle = row_tile >= RowTiles(args.n_out);
    const int begin = n_tiles * slice / splits;
    const int end = idle ? begin : n_tiles * (slice + 1) / splits;
    const simt::Words4* tiles =
        args.tiles + static_cast<int64_t>(row_tile) * n_tiles * 32 + lane;

    simt::LetNextKernelBegin();
    simt::Words4 weights[kAhead];
    SIMT_UNROLL
    for (int i = 0; i < kAhead; ++i) {
      if (begin + i < end) {
        weights[i] = simt::LoadStream(tiles + (begin + i) * 32);
      }
    }
    uint8_t* const x = simt::SharedMemory();
    const int x_bytes = n_tiles * kTileColumns;
    auto* const warp_sums = reinterpret_cast<int32_t*>(x + kTokens * x_bytes);
    const Scales scales(warp_sums + kTokens * warps * kTileRows);
    simt::WaitForPreviousKernels();
    ShareActivations(args, x, x_bytes);
    scales.Fetch(args, simt::BlockX() * block_row_tiles * kTileRows,
                 block_row_tiles * kTileRows);
    simt::SyncThreads();

    int32_t sums[kTokens][4] = {};
    for (int base = begin; base < end; base += kAhead) {
      SIMT_UNROLL
      for (int i = 0; i < kAhead; ++i) {
        const int tile = base + i;
        if (tile >= end) break;
        const simt::Words4 now = weights[i];
        if (tile + kAhead < end) {
          weights[i] = simt::LoadStream(tiles + (tile + kAhead) * 32);
        }
        SIMT_UNROLL
        for (int t = 0; t < kTokens; ++t) {
          const auto* mine = reinterpret_cast<const simt::Words4*>(
              x + t * x_bytes + tile * kTileColumns + lane % 4 * 32);
          const simt::Words4 x0 = simt::LoadShared(mine);
          const simt::Words4 x1 = simt::LoadShared(mine + 1);
          Accumulate(now.x, x0.x, x0.y, sums[t]);
          Accumulate(now.y, x0.z, x0.w, sums[t]);
          Accumulate(now.z, x1.x, x1.y, sums[t]);
          Accumulate(now.w, x1.z, x1.w, sums[t]);
        }
      }
    }
    Finish(args, scales, sums, warp_sums);
  }

 private:
  // Column 32 * i + 16 * h + 4 * t + j of a tile goes to byte 32 * t + 8 * i +
  // 4 * h + j.
  SIMT_DEVICE static void ShareActivations(const Args& args, uint8_t* x,
                                           int x_bytes) {
    const int chunks = x_bytes / 16;
    for (int i = simt::ThreadIndex(); i < kTokens * chunks;
         i += simt::ThreadCount()) {
      const int token = i / chunks;
      const int column = i % chunks * 16;
      simt::Words4 q = {0, 0, 0, 0};
      if (token < args.n_tokens && column < args.n_in) {
        q = simt::Load(reinterpret_cast<const simt::Words4*>(
            args.q + static_cast<int64_t>(token) * args.n_in + column));
      }
      auto* to = reinterpret_cast<uint32_t*>(
          x + token * x_bytes + column / kTileColumns * kTileColumns +
          column % kTileColumns / 16 * 4);
      simt::StoreShared(to, q.x);
      simt::StoreShared(to + 8, q.y);
      simt::StoreShared(to + 16, q.z);
      simt::StoreShared(to + 24, q.w);
    }
  }

  SIMT_DEVICE static void Accumulate(uint32_t word, uint32_t x_low,
                                     uint32_t x_high, int32_t (&sums)[4]) {
    sums[0] = simt::Dp4aU8S8(word & 0x03030303, x_low, sums[0]);
    sums[1] = simt::Dp4aU8S8(word & 0x0c0c0c0c, x_low, sums[1]);
    sums[2] = simt::Dp4aU8S8(word & 0x30303030, x_high, sums[2]);
    sums[3] = simt::Dp4aU8S8(word & 0xc0c0c0c0, x_high, sums[3]);
  }

  // Adds up the lanes of a row, then the warps of a row tile.
  SIMT_DEVICE static void Finish(const Args& args, const Scales& scales,
                                 const int32_t (&sums)[kTokens][4],
                                 int32_t* warp_sums) {
    const int lane = simt::LaneIndex();
    const int warps = simt::ThreadCount() / simt::kWarpSize;
    SIMT_UNROLL
    for (int t = 0; t < kTokens; ++t) {
      int32_t upper = sums[t][0] + (sums[t][2] >> 4);         // row g
      int32_t lower = (sums[t][1] >> 2) + (sums[t][3] >> 6);  // row g + 8
      SIMT_UNROLL
      for (int mask = 1; mask <= 2; mask *= 2) {
        upper += simt::ShuffleXor(upper, mask);
        lower += simt::ShuffleXor(lower, mask);
      }
      if (lane % 4 == 0) {
        int32_t* to =
            warp_sums + (t * warps + simt::WarpIndex()) * kTileRows + lane / 4;
        simt::StoreShared(to, upper);
        simt::StoreShared(to + 8, lower);
      }
    }
    simt::SyncThreads();
    const int rows = warps / args.column_splits * kTileRows;
    for (int i = simt::ThreadIndex(); i < kTokens * rows;
         i += simt::ThreadCount()) {
      const int token = i / rows;
      const int row = i % rows;
      if (token >= args.n_tokens || simt::BlockX() * rows + row >= args.n_out) {
        continue;
      }
      int32_t sum = 0;
      for (int split = 0; split < args.column_splits; ++split) {
        const int warp = row / kTileRows * args.column_splits + split;
        sum += simt::LoadShared(warp_sums + (token * warps + warp) * kTileRows +
                                row % kTileRows);
      }
      scales.Store(args, token, simt::BlockX() * rows, row, sum);
    }
  }
};

}  // namespace tern

#endif  // KERNELS_CUDA_TERNARY_GEMV_KERNEL_H_
