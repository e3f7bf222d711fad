#ifndef KERNELS_CUDA_HEAD_GEMV_KERNEL_H_
#define KERNELS_CUDA_HEAD_GEMV_KERNEL_H_

#include <cstdint>

#include "kernels/cuda/head_args.h"
#include "kernels/cuda/head_tiles.h"
#include "kernels/cuda/launch_shape.h"
#include "kernels/cuda/simt.h"

namespace tern::cuda {

// HeadArgs for kTokens tokens, by dot products of four bytes. A warp takes 16
// rows and streams their tiles, some of which are always on the way; each lane
// adds for two rows a fourth of the columns. Bound by memory.
template <int kTokens>
struct HeadGemvKernel {
  static constexpr int kThreads = 256;
  static constexpr int kBlocksPerSm = 4;
  static constexpr int kWarps = kThreads / simt::kWarpSize;
  static constexpr int kAhead = 8;  // tiles on the way
  using Args = HeadArgs;

  static simt::LaunchShape Shape(const Args& args) {
    simt::LaunchShape shape;
    shape.grid_x = HeadTileCount(args.n_rows, kHeadTileRows * kWarps);
    shape.threads = kThreads;
    shape.shared_bytes = kTokens * kHeadTileColumns *
                         HeadTileCount(args.n_columns, kHeadTileColumns);
    return shape;
  }

  SIMT_DEVICE static void Run(const Args& a) {
    const int n_tiles = (a.n_columns + kHeadTileColumns - 1) / kHeadTileColumns;
    auto* const q = reinterpret_cast<uint32_t*>(simt::SharedMemory());
    LoadTokens(a, n_tiles * kHeadTileColumns, q);
    simt::SyncThreads();

    const int tile_row = simt::BlockX() * kWarps + simt::WarpIndex();
    if (tile_row * kHeadTileRows >= a.n_rows) return;
    const auto* const tiles =
        reinterpret_cast<const simt::Words4*>(a.tiles) +
        static_cast<int64_t>(tile_row) * n_tiles * simt::kWarpSize +
        simt::LaneIndex();
    Sums sums = {};
    int tile = 0;
    for (; tile + kAhead <= n_tiles; tile += kAhead) {
      simt::Words4 w[kAhead];
      SIMT_UNROLL
      for (int i = 0; i < kAhead; ++i) {
        w[i] = simt::LoadStream(tiles + (tile + i) * simt::kWarpSize);
      }
      SIMT_UNROLL
      for (int i = 0; i < kAhead; ++i)
        AddTile(w[i], tile + i, n_tiles, q, sums);
    }
    for (; tile < n_tiles; ++tile) {
      AddTile(simt::LoadStream(tiles + tile * simt::kWarpSize), tile, n_tiles,
              q, sums);
    }
    StoreLogits(a, tile_row * kHeadTileRows, sums);
  }

 private:
  // Of rows g and g + 8.
  struct Sums {
    int32_t of[kTokens][2];
  };

  // Tokens side by side in shared memory, zeros up to `padded` columns.
  SIMT_DEVICE static void LoadTokens(const Args& a, int padded, uint32_t* q) {
    constexpr int kStep = 4;  // bytes
    for (int i = simt::ThreadIndex(); i < kTokens * padded / kStep;
         i += simt::ThreadCount()) {
      const int token = i / (padded / kStep);
      const int column = i % (padded / kStep) * kStep;
      uint32_t word = 0;
      if (column < a.n_columns) {
        word = simt::Load(reinterpret_cast<const uint32_t*>(
            a.q + static_cast<int64_t>(token) * a.n_columns + column));
      }
      simt::StoreShared(q + i, word);
    }
  }

  SIMT_DEVICE static void AddTile(const simt::Words4& w, int tile, int n_tiles,
                                  const uint32_t* q, Sums& sums) {
    constexpr int kTileWords = kHeadTileColumns / 4;
    const int t = simt::LaneIndex() % 4;
    SIMT_UNROLL
    for (int token = 0; token < kTokens; ++token) {
      const uint32_t* const at = q + (token * n_tiles + tile) * kTileWords + t;
      const uint32_t low = simt::LoadShared(at);
      const uint32_t high = simt::LoadShared(at + 4);
      int32_t(&sum)[2] = sums.of[token];
      sum[0] = simt::Dp4aS8S8(w.x, low, sum[0]);
      sum[1] = simt::Dp4aS8S8(w.y, low, sum[1]);
      sum[0] = simt::Dp4aS8S8(w.z, high, sum[0]);
      sum[1] = simt::Dp4aS8S8(w.w, high, sum[1]);
    }
  }

  SIMT_DEVICE static void StoreLogits(const Args& a, int first_row,
                                      const Sums& sums) {
    SIMT_UNROLL
    for (int token = 0; token < kTokens; ++token) {
      SIMT_UNROLL
      for (int half = 0; half < 2; ++half) {
        int32_t sum = sums.of[token][half];
        sum += simt::ShuffleXor(sum, 1);
        sum += simt::ShuffleXor(sum, 2);
        const int row = first_row + 8 * half + simt::LaneIndex() / 4;
        if (simt::LaneIndex() % 4 != 0 || row >= a.n_rows) continue;
        const float scaled =
            simt::Divide(static_cast<float>(sum), simt::Load(a.s + token));
        simt::Store(a.logits + token * a.logits_stride + row,
                    scaled * simt::Load(a.row_scale + row));
      }
    }
  }
};

}  // namespace tern::cuda

#endif  // KERNELS_CUDA_HEAD_GEMV_KERNEL_H_
