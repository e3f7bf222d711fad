#ifndef KERNELS_CUDA_SIMT_PROBE_KERNEL_H_
#define KERNELS_CUDA_SIMT_PROBE_KERNEL_H_

#include <cstdint>

#include "kernels/cuda/simt.h"

namespace tern::simt {

// What a thread gets from every function of simt.h, given its input words. The
// emulator's is compared with plain computations, and a device's with the
// emulator's.
struct ProbeResult {
  int32_t place[5];  // thread, threads, block x, lane, warp
  int32_t shuffle[4];
  uint64_t shuffle64;
  uint32_t ballot;
  int32_t dp4a[2];
  int32_t mma_u8s8[4];
  int32_t mma_s8s8[4];
  float mma_f16[4];
  uint32_t load_matrix[7];  // 1, 2 and 4 matrices
  uint32_t load_matrix_transposed[7];
  Words4 copied[2];  // of the next thread of the block: valid or not
  Words4 streamed;
  int32_t coherent;
  uint32_t numbers[8];  // Fma, Divide, Sqrt, RoundEven, halves both ways
  uint64_t high;
};

struct ProbeInput {
  uint32_t a[4];
  uint32_t b[2];
  int32_t c[4];
  uint32_t half_a[4];  // float16 small integers, so that sums are exact
  uint32_t half_b[2];
  float x[3];  // ordinary numbers
  uint32_t pad;
  uint64_t wide[2];
  Words4 words;
};

struct ProbeKernel {
  static constexpr int kThreads = 64;
  static constexpr int kBlocksPerSm = 1;
  // Of a block: one row of words and one of zeros for each thread.
  static constexpr int kSharedBytes = kThreads * 2 * sizeof(Words4);
  struct Args {
    const ProbeInput* in;  // [blocks * kThreads]
    ProbeResult* out;      // [blocks * kThreads]
    int32_t* total;        // += thread index, of each thread
  };

  SIMT_DEVICE static void Run(const Args& args) {
    const int thread = ThreadIndex();
    const int lane = LaneIndex();
    const ProbeInput& in = args.in[BlockX() * ThreadCount() + thread];
    ProbeResult& out = args.out[BlockX() * ThreadCount() + thread];

    Store(&out.place[0], thread);
    Store(&out.place[1], ThreadCount());
    Store(&out.place[2], BlockX());
    Store(&out.place[3], lane);
    Store(&out.place[4], WarpIndex());
    AtomicAdd(args.total, thread);

    const int32_t c0 = Load(&in.c[0]);
    Store(&out.shuffle[0], Shuffle(c0, (lane * 5 + 3) % kWarpSize));
    Store(&out.shuffle[1], ShuffleUp(c0, 3));
    Store(&out.shuffle[2], ShuffleDown(c0, 5));
    Store(&out.shuffle[3], ShuffleXor(c0, 9));
    const uint64_t wide0 = Load(&in.wide[0]);
    Store(&out.shuffle64, ShuffleXor(wide0, 1));
    Store(&out.ballot, Ballot(c0 % 3 == 0));

    uint32_t a[4], b[2];
    SIMT_UNROLL
    for (int i = 0; i < 4; ++i) a[i] = Load(&in.a[i]);
    SIMT_UNROLL
    for (int i = 0; i < 2; ++i) b[i] = Load(&in.b[i]);
    Store(&out.dp4a[0], Dp4aU8S8(a[0], b[0], c0));
    Store(&out.dp4a[1], Dp4aS8S8(a[0], b[0], c0));
    Matrices(in, a, b, &out);
    SharedMatrices(in, &out);
    Numbers(in, &out);
  }

 private:
  SIMT_DEVICE static void Matrices(const ProbeInput& in, const uint32_t (&a)[4],
                                   const uint32_t (&b)[2], ProbeResult* out) {
    int32_t unsigned_c[4], signed_c[4];
    float float_c[4];
    uint32_t half_a[4], half_b[2];
    SIMT_UNROLL
    for (int i = 0; i < 4; ++i) {
      unsigned_c[i] = signed_c[i] = Load(&in.c[i]);
      float_c[i] = static_cast<float>(i);
      half_a[i] = Load(&in.half_a[i]);
    }
    SIMT_UNROLL
    for (int i = 0; i < 2; ++i) half_b[i] = Load(&in.half_b[i]);
    MmaU8S8(unsigned_c, a, b);
    MmaS8S8(signed_c, a, b);
    MmaF16(float_c, half_a, half_b);
    SIMT_UNROLL
    for (int i = 0; i < 4; ++i) {
      Store(&out->mma_u8s8[i], unsigned_c[i]);
      Store(&out->mma_s8s8[i], signed_c[i]);
      Store(&out->mma_f16[i], float_c[i]);
    }
  }

  SIMT_DEVICE static void SharedMatrices(const ProbeInput& in,
                                         ProbeResult* out) {
    auto* shared = reinterpret_cast<Words4*>(SharedMemory());
    const int thread = ThreadIndex();
    CopyAsync(&shared[thread], &in.words);
    CopyAsyncCommit();
    CopyAsync(&shared[thread + ThreadCount()], &in.words, thread % 2 == 0);
    CopyAsyncCommit();
    CopyAsyncWait<1>();
    CopyAsyncWait<0>();
    SyncThreads();
    const int next = (thread + 1) % ThreadCount();
    Store(&out->copied[0], LoadShared(&shared[next]));
    Store(&out->copied[1], LoadShared(&shared[next + ThreadCount()]));
    Store(&out->streamed, LoadStream(&in.words));
    Store(&out->coherent, LoadCoherent(&in.c[3]));

    const Words4* row = &shared[thread];
    uint32_t m1[1], m2[2], m4[4];
    LoadMatrix(m1, row);
    LoadMatrix(m2, row);
    LoadMatrix(m4, row);
    StoreMatrices(m1, m2, m4, out->load_matrix);
    LoadMatrixTransposed(m1, row);
    LoadMatrixTransposed(m2, row);
    LoadMatrixTransposed(m4, row);
    StoreMatrices(m1, m2, m4, out->load_matrix_transposed);
  }

  SIMT_DEVICE static void StoreMatrices(const uint32_t (&m1)[1],
                                        const uint32_t (&m2)[2],
                                        const uint32_t (&m4)[4],
                                        uint32_t* out) {
    Store(&out[0], m1[0]);
    SIMT_UNROLL
    for (int i = 0; i < 2; ++i) Store(&out[1 + i], m2[i]);
    SIMT_UNROLL
    for (int i = 0; i < 4; ++i) Store(&out[3 + i], m4[i]);
  }

  SIMT_DEVICE static void Numbers(const ProbeInput& in, ProbeResult* out) {
    const float x = Load(&in.x[0]);
    const float y = Load(&in.x[1]);
    const float z = Load(&in.x[2]);
    Store(&out->numbers[0], FloatBits(Fma(x, y, z)));
    Store(&out->numbers[1], FloatBits(Divide(x, y)));
    Store(&out->numbers[2], FloatBits(Sqrt(x * x + z * z)));
    Store(&out->numbers[3], FloatBits(RoundEven(x)));
    Store(&out->numbers[4], static_cast<uint32_t>(FloatToHalf(x)));
    Store(&out->numbers[5], FloatBits(HalfToFloat(FloatToHalf(y))));
    Store(&out->numbers[6], FloatBits(x * y + z));  // two roundings
    Store(&out->numbers[7], FloatBits(x / z));
    const uint64_t p = Load(&in.wide[0]);
    const uint64_t q = Load(&in.wide[1]);
    Store(&out->high, MultiplyHigh(p, q));
  }
};

}  // namespace tern::simt

#endif  // KERNELS_CUDA_SIMT_PROBE_KERNEL_H_
