#ifndef KERNELS_CUDA_TERNARY_MMA_KERNEL_H_
#define KERNELS_CUDA_TERNARY_MMA_KERNEL_H_

#include <cstdint>

#include "kernels/cuda/simt.h"
#include "kernels/cuda/ternary_block.h"
#include "kernels/cuda/ternary_matmul_args.h"
#include "kernels/cuda/ternary_tiles.h"
#include "kernels/cuda/ternary_unpack.h"

namespace tern {

// TernaryMatmulArgs by mma.m16n8k32, u8 x s8, on every target. Blocks are those
// of ternary_block.h. Stages are a ring that cp.async fills kStages - 1 tiles
// ahead; weights are unpacked in registers, 5 operations for 16.
template <int kRowTiles, int kTokenTiles, int kWarpsOfRows, int kWarpsOfTokens,
          int kStages, int kBlocksOfSm>
struct TernaryMmaKernel {
  using Block = TernaryBlock<kRowTiles, kTokenTiles, kWarpsOfRows,
                             kWarpsOfTokens, kStages>;
  using Args = TernaryMatmulArgs;
  static constexpr int kThreads = Block::kThreads;
  static constexpr int kBlocksPerSm = kBlocksOfSm;
  static_assert(kTokenTiles == 1 || kTokenTiles % 2 == 0);

  SIMT_DEVICE static void Run(const Args& args) {
    const int begin = Block::FirstTile(args);
    const int end = Block::EndTile(args);
    SIMT_UNROLL
    for (int stage = 0; stage < kStages - 1; ++stage) {
      if (begin + stage < end) Block::Fetch(args, begin + stage, stage);
      simt::CopyAsyncCommit();
    }
    typename Block::Sums sums = {};
    int stage = 0;
    for (int tile = begin; tile < end; ++tile) {
      // This tile is there, and nobody reads the one before any more.
      simt::CopyAsyncWait<kStages - 2>();
      simt::SyncThreads();
      const int next = tile + kStages - 1;
      if (next < end) {
        Block::Fetch(args, next, stage == 0 ? kStages - 1 : stage - 1);
      }
      simt::CopyAsyncCommit();
      Multiply(stage, sums);
      stage = stage + 1 == kStages ? 0 : stage + 1;
    }
    Block::Finish(args, sums);
  }

 private:
  // Adds the products of the tile in `stage` to the warp's sums.
  SIMT_DEVICE static void Multiply(int stage, typename Block::Sums& sums) {
    const uint8_t* const from = Block::Stage(stage);
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
      simt::LoadMatrix(b[0],
                       from + Block::ActivationOffset(first_token + lane % 8,
                                                      2 * k + lane / 8 % 2));
    } else {
      // The same for lanes 16..31 and tokens 8..15.
      SIMT_UNROLL
      for (int t = 0; t < kTokenTiles; t += 2) {
        uint32_t m[4];
        const int token = first_token + t * 8 + lane / 16 * 8 + lane % 8;
        simt::LoadMatrix(
            m, from + Block::ActivationOffset(token, 2 * k + lane / 8 % 2));
        b[t][0] = m[0];
        b[t][1] = m[1];
        b[t + 1][0] = m[2];
        b[t + 1][1] = m[3];
      }
    }
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
