#ifndef KERNELS_CUDA_TERNARY_SKINNY_KERNEL_H_
#define KERNELS_CUDA_TERNARY_SKINNY_KERNEL_H_

#include <cstdint>

#include "kernels/cuda/simt.h"
#include "kernels/cuda/ternary_matmul_args.h"
#include "kernels/cuda/ternary_tiles.h"
#include "kernels/cuda/ternary_unpack.h"

namespace tern {

// TernaryMatmulArgs for up to 8 * kTokenTiles tokens by mma.m16n8k32: few
// tokens, bound by the memory that weights come from and by its latency.
//
// As TernaryGemvKernel: each warp takes one row tile and a slice of its
// columns, column_splits warps of a block share a row tile and add up in shared
// memory, so that no block waits for another. Weights go from memory to
// registers, the first kAhead tiles before anything is waited for (kernels
// before this one, too); all columns of all tokens lie in shared memory.
//
// Shape: grid_x = ceil(row tiles * column_splits / 8), 8 warps.
template <int kTokenTiles>
struct TernarySkinnyKernel {
  static constexpr int kThreads = 256;
  static constexpr int kBlocksPerSm = 2;
  static constexpr int kTokens = 8 * kTokenTiles;
  static constexpr int kWarps = kThreads / simt::kWarpSize;
  static constexpr int kAhead = 8;
  static constexpr int kChunks = kTileColumns / 16;  // of a token and a tile
  using Args = TernaryMatmulArgs;
  using Scales = SharedTernaryScales<kTokens, kWarps * kTileRows>;
  // Sums of a warp: one for each output of its row tile.
  static constexpr int kWarpSums = kTileRows * kTokens;

  // Activations, sums of all warps, scales.
  static constexpr int SharedBytes(int n_in) {
    return kTokens * ColumnTiles(n_in) * kTileColumns + kWarps * kWarpSums * 4 +
           Scales::kBytes;
  }

  SIMT_DEVICE static void Run(const Args& args) {
    const int lane = simt::LaneIndex();
    const int splits = args.column_splits;
    const int block_row_tiles = kWarps / splits;
    const int first_row_tile = simt::BlockX() * block_row_tiles;
    const int row_tile = first_row_tile + simt::WarpIndex() / splits;
    const int slice = simt::WarpIndex() % splits;
    const int n_tiles = ColumnTiles(args.n_in);
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
    auto* const warp_sums =
        reinterpret_cast<int32_t*>(x + kTokens * n_tiles * kTileColumns);
    const Scales scales(warp_sums + kWarps * kWarpSums);
    simt::WaitForPreviousKernels();
    FetchTokens(args, x);
    scales.Fetch(args, first_row_tile * kTileRows, block_row_tiles * kTileRows);
    simt::CopyAsyncCommit();
    simt::CopyAsyncWait<0>();
    simt::SyncThreads();

    int32_t sums[kTokenTiles][4] = {};
    for (int base = begin; base < end; base += kAhead) {
      SIMT_UNROLL
      for (int i = 0; i < kAhead; ++i) {
        const int tile = base + i;
        if (tile >= end) break;
        const simt::Words4 now = weights[i];
        if (tile + kAhead < end) {
          weights[i] = simt::LoadStream(tiles + (tile + kAhead) * 32);
        }
        Multiply(now, x, n_tiles, tile, sums);
      }
    }
    SIMT_UNROLL
    for (int i = 0; i < 4 * kTokenTiles; ++i) {
      simt::StoreShared(&warp_sums[simt::WarpIndex() * kWarpSums +
                                   i * simt::kWarpSize + lane],
                        sums[i / 4][i % 4]);
    }
    simt::SyncThreads();
    Finish(args, scales, warp_sums, first_row_tile * kTileRows);
  }

 private:
  // Chunks of 16 bytes are permuted within the 128 of a token and a tile, so
  // that the eight rows of a matrix that ldmatrix reads lie in different banks.
  SIMT_DEVICE static int Offset(int n_tiles, int token, int tile, int chunk) {
    return (token * n_tiles + tile) * kTileColumns + (chunk ^ (token % 8)) * 16;
  }

  // Begins to copy all tokens.
  SIMT_DEVICE static void FetchTokens(const Args& args, uint8_t* x) {
    const int n_tiles = ColumnTiles(args.n_in);
    // A warp takes four tiles of a token at a time.
    for (int token = simt::WarpIndex(); token < kTokens; token += kWarps) {
      const int8_t* q = args.q + static_cast<int64_t>(token) * args.n_in;
      for (int i = simt::LaneIndex(); i < n_tiles * kChunks;
           i += simt::kWarpSize) {
        simt::CopyAsync(x + Offset(n_tiles, token, i / kChunks, i % kChunks),
                        q + i * 16,
                        token < args.n_tokens && i * 16 < args.n_in);
      }
    }
  }

  // Adds the products of one tile.
  SIMT_DEVICE static void Multiply(const simt::Words4& words, const uint8_t* x,
                                   int n_tiles, int tile,
                                   int32_t (&sums)[kTokenTiles][4]) {
    const uint32_t of_columns[4] = {words.x, words.y, words.z, words.w};
    const int lane = simt::LaneIndex();
    SIMT_UNROLL
    for (int t = 0; t < kTokenTiles; ++t) {
      const int token = t * 8 + lane % 8;
      SIMT_UNROLL
      for (int k = 0; k < 4; k += 2) {
        // Columns 32 * k .. 32 * k + 63 of eight tokens, as B fragments.
        uint32_t m[4];
        simt::LoadMatrix(m, x + Offset(n_tiles, token, tile, 2 * k + lane / 8));
        SIMT_UNROLL
        for (int half = 0; half < 2; ++half) {
          uint32_t a[4];
          UnpackTernary(of_columns[k + half], a);
          const uint32_t b[2] = {m[2 * half], m[2 * half + 1]};
          simt::MmaU8S8(sums[t], a, b);
        }
      }
    }
  }

  // Adds up the warps of each row tile and writes the outputs.
  SIMT_DEVICE static void Finish(const Args& args, const Scales& scales,
                                 const int32_t* warp_sums, int first_row) {
    const int splits = args.column_splits;
    for (int i = simt::ThreadIndex(); i < kWarps / splits * kWarpSums;
         i += kThreads) {
      const int row_tile = i / kWarpSums;
      const int fragment = i % kWarpSums / simt::kWarpSize;
      const int lane = i % simt::kWarpSize;
      const int token = fragment / 4 * 8 + lane % 4 * 2 + fragment % 2;
      const bool lower = fragment % 4 >= 2;
      const int row = row_tile * kTileRows + lane / 4 + (lower ? 8 : 0);
      int32_t sum = 0;
      for (int split = 0; split < splits; ++split) {
        sum += simt::LoadShared(
            &warp_sums[(row_tile * splits + split) * kWarpSums +
                       i % kWarpSums]);
      }
      if (token < args.n_tokens && first_row + row < args.n_out) {
        // Rows g + 8 were multiplied by four.
        scales.Store(args, token, first_row, row, lower ? sum >> 2 : sum);
      }
    }
  }
};

using TernarySkinny8 = TernarySkinnyKernel<1>;
using TernarySkinny16 = TernarySkinnyKernel<2>;

}  // namespace tern

#endif  // KERNELS_CUDA_TERNARY_SKINNY_KERNEL_H_
