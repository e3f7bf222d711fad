#ifndef BENCH_GPU_PEAK_KERNELS_H_
#define BENCH_GPU_PEAK_KERNELS_H_

#include <cstdint>

#include "kernels/cuda/simt.h"

namespace tern {

// Reads [n] times 16 bytes and does nothing else. Each block takes runs of its
// threads' words, so that what is read at a time is near together.
struct ReadPeakKernel {
  static constexpr int kThreads = 512;
  static constexpr int kBlocksPerSm = 2;
  static constexpr int kAhead = 8;
  struct Args {
    const simt::Words4* from;
    int64_t n;       // a multiple of kThreads * kAhead
    uint32_t* sink;  // written when all words are zero, which they are not
  };

  SIMT_DEVICE static void Run(const Args& args) {
    uint32_t all = 0;
    const int64_t run = int64_t{kThreads} * kAhead;
    for (int64_t at = simt::BlockX() * run; at < args.n;
         at += simt::GridX() * run) {
      simt::Words4 words[kAhead];
      SIMT_UNROLL
      for (int i = 0; i < kAhead; ++i) {
        words[i] = simt::LoadStream(args.from + at + i * kThreads +
                                    simt::ThreadIndex());
      }
      SIMT_UNROLL
      for (int i = 0; i < kAhead; ++i) {
        all |= words[i].x | words[i].y | words[i].z | words[i].w;
      }
    }
    if (all == 0) simt::Store(args.sink, 1u);
  }
};

// Multiplies in registers with mma.m16n8k32 and does nothing else.
struct MmaPeakKernel {
  static constexpr int kThreads = 256;
  static constexpr int kBlocksPerSm = 2;
  static constexpr int kChains = 8;      // independent sums of a warp
  static constexpr double kOpsOfRound =  // of a block
      2.0 * 16 * 8 * 32 * kChains * (kThreads / simt::kWarpSize);
  struct Args {
    const uint32_t* operands;  // [6 * 32], random
    int32_t* sums;             // [blocks * kThreads]
    int rounds;                // of kChains multiplications
  };

  SIMT_DEVICE static void Run(const Args& args) {
    uint32_t a[4];
    uint32_t b[2];
    SIMT_UNROLL
    for (int i = 0; i < 4; ++i) {
      a[i] = simt::Load(&args.operands[i * 32 + simt::LaneIndex()]);
    }
    SIMT_UNROLL
    for (int i = 0; i < 2; ++i) {
      b[i] = simt::Load(&args.operands[(4 + i) * 32 + simt::LaneIndex()]);
    }
    int32_t sums[kChains][4] = {};
    for (int round = 0; round < args.rounds; ++round) {
      SIMT_UNROLL
      for (int chain = 0; chain < kChains; ++chain) {
        simt::MmaU8S8(sums[chain], a, b);
      }
    }
    int32_t total = 0;
    SIMT_UNROLL
    for (int chain = 0; chain < kChains; ++chain) {
      SIMT_UNROLL
      for (int i = 0; i < 4; ++i) total ^= sums[chain][i];
    }
    simt::Store(
        &args.sums[simt::BlockX() * simt::ThreadCount() + simt::ThreadIndex()],
        total);
  }
};

// Multiplies with wgmma (sm_90a) and does nothing else.
struct WgmmaPeakKernel {
  static constexpr int kThreads = 256;
  static constexpr int kBlocksPerSm = 2;
  static constexpr int kSharedBytes = 128 * 128;                // b, 128 deep
  static constexpr double kOpsOfRound = 2.0 * 128 * 128 * 128;  // of a block
  struct Args {
    const uint32_t* operands;  // [kSharedBytes / 4], random
    int32_t* sums;             // [blocks * kThreads]
    int rounds;
  };

  SIMT_DEVICE static void Run(const Args& args) {
    auto* const b = reinterpret_cast<uint32_t*>(simt::SharedMemory());
    for (int i = simt::ThreadIndex(); i < kSharedBytes / 4; i += kThreads) {
      simt::StoreShared(&b[i], simt::Load(&args.operands[i]));
    }
    uint32_t a[4];
    SIMT_UNROLL
    for (int i = 0; i < 4; ++i) {
      a[i] = simt::Load(&args.operands[i * 32 + simt::LaneIndex()]);
    }
    simt::FenceSharedForWgmma();
    simt::SyncThreads();
    int32_t sums[16][4] = {};
    for (int round = 0; round < args.rounds; ++round) {
      simt::WgmmaFence();
      SIMT_UNROLL
      for (int k = 0; k < 4; ++k) {
        simt::WgmmaU8S8(sums, a, simt::SharedMemory() + 32 * k);
      }
      simt::WgmmaCommit();
      simt::WgmmaWait<1>(sums);
    }
    simt::WgmmaWait<0>(sums);
    int32_t total = 0;
    SIMT_UNROLL
    for (int i = 0; i < 64; ++i) total ^= sums[i / 4][i % 4];
    simt::Store(
        &args.sums[simt::BlockX() * simt::ThreadCount() + simt::ThreadIndex()],
        total);
  }
};

}  // namespace tern

#endif  // BENCH_GPU_PEAK_KERNELS_H_
