#ifndef KERNELS_CUDA_HEAD_MMA_KERNEL_H_
#define KERNELS_CUDA_HEAD_MMA_KERNEL_H_

#include <cstdint>

#include "kernels/cuda/head_args.h"
#include "kernels/cuda/head_tiles.h"
#include "kernels/cuda/launch_shape.h"
#include "kernels/cuda/simt.h"

namespace tern::cuda {

// HeadArgs by mma.m16n8k32. A warp takes 16 rows and kTokens tokens; the
// block's warps share the tokens, which come to shared memory a slab of columns
// at a time. Blocks of the same rows and other tokens are neighbours
// (BlockX % slices of tokens), so that rows are read from memory once.
template <int kTokenTiles>
struct HeadMmaKernel {
  static constexpr int kThreads = 256;
  static constexpr int kBlocksPerSm = 2;
  static constexpr int kWarps = kThreads / simt::kWarpSize;
  static constexpr int kTokens = 8 * kTokenTiles;
  static constexpr int kSlabTiles = 16;  // tiles of columns
  static constexpr int kSlabColumns = kSlabTiles * kHeadTileColumns;
  // Bytes from a token to the next: 16 more, so that the rows that LoadMatrix()
  // reads together lie in different banks.
  static constexpr int kTokenBytes = kSlabColumns + 16;
  static constexpr int kAhead = 8;  // tiles on the way
  static_assert(kSlabTiles % kAhead == 0);
  using Args = HeadArgs;

  static simt::LaunchShape Shape(const Args& args) {
    simt::LaunchShape shape;
    shape.grid_x = HeadTileCount(args.n_tokens, kTokens) *
                   HeadTileCount(args.n_rows, kHeadTileRows * kWarps);
    shape.threads = kThreads;
    shape.shared_bytes = kTokens * kTokenBytes;
    return shape;
  }

  SIMT_DEVICE static void Run(const Args& a) {
    const int slices = (a.n_tokens + kTokens - 1) / kTokens;
    const int first_token = simt::BlockX() % slices * kTokens;
    const int tile_row = simt::BlockX() / slices * kWarps + simt::WarpIndex();
    const bool has_rows = tile_row * kHeadTileRows < a.n_rows;
    const int n_tiles = (a.n_columns + kHeadTileColumns - 1) / kHeadTileColumns;
    const auto* const tiles =
        reinterpret_cast<const simt::Words4*>(a.tiles) +
        static_cast<int64_t>(tile_row) * n_tiles * simt::kWarpSize +
        simt::LaneIndex();
    Sums sums = {};
    for (int tile = 0; tile < n_tiles; tile += kSlabTiles) {
      simt::SyncThreads();  // all have done with the slab before
      LoadSlab(a, first_token, tile * kHeadTileColumns);
      simt::SyncThreads();
      const int left = n_tiles - tile;
      if (has_rows) {
        AddSlab(tiles + tile * simt::kWarpSize,
                left < kSlabTiles ? left : kSlabTiles, sums);
      }
    }
    if (has_rows) {
      StoreLogits(a, tile_row * kHeadTileRows, first_token, sums);
    }
  }

 private:
  // As mma.m16n8k32 spreads them.
  struct Sums {
    int32_t of[kTokenTiles][4];
  };

  // Zeros where there is no token or column.
  SIMT_DEVICE static void LoadSlab(const Args& a, int first_token,
                                   int first_column) {
    constexpr int kPieces = kSlabColumns / 16;
    for (int i = simt::ThreadIndex(); i < kTokens * kPieces;
         i += simt::ThreadCount()) {
      const int token = i / kPieces;
      const int in_slab = i % kPieces * 16;
      const int column = first_column + in_slab;
      const bool exists =
          first_token + token < a.n_tokens && column < a.n_columns;
      const int8_t* const from =
          exists
              ? a.q + static_cast<int64_t>(first_token + token) * a.n_columns +
                    column
              : a.q;
      simt::CopyAsync(simt::SharedMemory() + token * kTokenBytes + in_slab,
                      from, exists);
    }
    simt::CopyAsyncCommit();
    simt::CopyAsyncWait<0>();
  }

  SIMT_DEVICE static void AddSlab(const simt::Words4* tiles, int n_tiles,
                                  Sums& sums) {
    int tile = 0;
    for (; tile + kAhead <= n_tiles; tile += kAhead) {
      simt::Words4 w[kAhead];
      SIMT_UNROLL
      for (int i = 0; i < kAhead; ++i) {
        w[i] = simt::LoadStream(tiles + (tile + i) * simt::kWarpSize);
      }
      SIMT_UNROLL
      for (int i = 0; i < kAhead; ++i) AddTile(w[i], tile + i, sums);
    }
    for (; tile < n_tiles; ++tile) {
      AddTile(simt::LoadStream(tiles + tile * simt::kWarpSize), tile, sums);
    }
  }

  SIMT_DEVICE static void AddTile(const simt::Words4& w, int tile, Sums& sums) {
    const uint32_t a[4] = {w.x, w.y, w.z, w.w};
    const int column = tile * kHeadTileColumns;
    const int lane = simt::LaneIndex();
    if constexpr (kTokenTiles == 1) {
      // Matrices: columns 0..15 and 16..31 of eight tokens.
      uint32_t b[2];
      simt::LoadMatrix<2>(b, simt::SharedMemory() + lane % 8 * kTokenBytes +
                                 column + lane / 8 % 2 * 16);
      simt::MmaS8S8(sums.of[0], a, b);
    } else {
      SIMT_UNROLL
      for (int tile_pair = 0; tile_pair < kTokenTiles; tile_pair += 2) {
        // The same of eight tokens and of the next eight.
        uint32_t m[4];
        const int token = (tile_pair + lane / 16) * 8 + lane % 8;
        simt::LoadMatrix<4>(m, simt::SharedMemory() + token * kTokenBytes +
                                   column + lane / 8 % 2 * 16);
        const uint32_t low[2] = {m[0], m[1]};
        const uint32_t high[2] = {m[2], m[3]};
        simt::MmaS8S8(sums.of[tile_pair], a, low);
        simt::MmaS8S8(sums.of[tile_pair + 1], a, high);
      }
    }
  }

  SIMT_DEVICE static void StoreLogits(const Args& a, int first_row,
                                      int first_token, const Sums& sums) {
    SIMT_UNROLL
    for (int i = 0; i < 4; ++i) {
      const int row = first_row + simt::LaneIndex() / 4 + i / 2 * 8;
      if (row >= a.n_rows) continue;
      const float row_scale = simt::Load(a.row_scale + row);
      SIMT_UNROLL
      for (int tile = 0; tile < kTokenTiles; ++tile) {
        const int64_t token =
            first_token + 8 * tile + simt::LaneIndex() % 4 * 2 + i % 2;
        if (token >= a.n_tokens) continue;
        const float scaled = simt::Divide(static_cast<float>(sums.of[tile][i]),
                                          simt::Load(a.s + token));
        simt::Store(a.logits + token * a.logits_stride + row,
                    scaled * row_scale);
      }
    }
  }
};

}  // namespace tern::cuda

#endif  // KERNELS_CUDA_HEAD_MMA_KERNEL_H_
