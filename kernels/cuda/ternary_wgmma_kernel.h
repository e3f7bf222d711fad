#ifndef KERNELS_CUDA_TERNARY_WGMMA_KERNEL_H_
#define KERNELS_CUDA_TERNARY_WGMMA_KERNEL_H_

#include <cstdint>

#include "kernels/cuda/simt.h"
#include "kernels/cuda/ternary_block.h"
#include "kernels/cuda/ternary_matmul_args.h"
#include "kernels/cuda/ternary_tiles.h"
#include "kernels/cuda/ternary_unpack.h"

namespace tern {

// TernaryMatmulArgs for prompts on Hopper (sm_90a), by wgmma m64n128k32, u8 x
// s8, with weights from registers.
//
// Two warpgroups, each 64 rows x 128 tokens; every warp has one row tile. While
// the tensor cores multiply one tile of 128 columns, the threads unpack the
// next: 20 operations for what takes the tensor cores 256 cycles. Two blocks of
// a multiprocessor fill each other's gaps. The order of activations in a stage
// (TernaryBlock::ActivationOffset) is the 128-byte swizzle of wgmma.
struct TernaryWgmma128 {
  static constexpr int kStages = 5;
  using Block = TernaryBlock<1, 16, 8, 1, kStages>;
  using Args = TernaryMatmulArgs;
  static constexpr int kThreads = Block::kThreads;
  static constexpr int kBlocksPerSm = 2;
  // Stages are filled so far ahead: one is being multiplied, one was.
  static constexpr int kAhead = kStages - 2;
  static_assert(Block::kStageBytes % 1024 == 0 &&
                Block::kWeightBytes % 1024 == 0);

  SIMT_DEVICE static void Run(const Args& args) {
    const int begin = Block::FirstTile(args);
    const int end = Block::EndTile(args);
    SIMT_UNROLL
    for (int i = 0; i < kAhead; ++i) {
      if (begin + i < end) Block::Fetch(args, begin + i, i);
      simt::CopyAsyncCommit();
    }
    typename Block::Sums sums = {};
    // Of two tiles: those being multiplied, and the next.
    uint32_t weights[2][4][4];
    int stage = 0;
    for (int tile = begin; tile < end; tile += 2) {
      Step(args, tile, end, stage, weights[0], sums[0]);
      stage = Next(stage);
      if (tile + 1 == end) break;
      Step(args, tile + 1, end, stage, weights[1], sums[0]);
      stage = Next(stage);
    }
    simt::WgmmaWait<0>(sums[0]);
    Block::Finish(args, sums);
  }

 private:
  SIMT_DEVICE static int Next(int stage) {
    return stage + 1 == kStages ? 0 : stage + 1;
  }

  // Begins to multiply the tile in `stage`, and waits for the one before it.
  SIMT_DEVICE static void Step(const Args& args, int tile, int end, int stage,
                               uint32_t (&weights)[4][4],
                               int32_t (&sums)[16][4]) {
    simt::CopyAsyncWait<kAhead - 1>();
    simt::FenceSharedForWgmma();
    // All copies of this tile are there, and nobody multiplies the tile before
    // the last any more: its stage is free.
    simt::SyncThreads();
    if (tile + kAhead < end) {
      Block::Fetch(args, tile + kAhead, (stage + kAhead) % kStages);
    }
    simt::CopyAsyncCommit();
    const uint8_t* const from = Block::Stage(stage);
    const simt::Words4 words =
        simt::LoadShared(reinterpret_cast<const simt::Words4*>(
            from + simt::WarpIndex() * kTileBytes + simt::LaneIndex() * 16));
    UnpackTernary(words.x, weights[0]);
    UnpackTernary(words.y, weights[1]);
    UnpackTernary(words.z, weights[2]);
    UnpackTernary(words.w, weights[3]);
    simt::WgmmaFence();
    SIMT_UNROLL
    for (int k = 0; k < 4; ++k) {
      simt::WgmmaU8S8(sums, weights[k], from + Block::kWeightBytes + 32 * k);
    }
    simt::WgmmaCommit();
    simt::WgmmaWait<1>(sums);
  }
};

}  // namespace tern

#endif  // KERNELS_CUDA_TERNARY_WGMMA_KERNEL_H_
