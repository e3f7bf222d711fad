#ifndef KERNELS_CUDA_SIMT_DEVICE_H_
#define KERNELS_CUDA_SIMT_DEVICE_H_

// The functions of simt.h as instructions. Only included by it, under nvcc.

#include <cuda_fp16.h>

namespace tern::simt {

SIMT_INSTRUCTION int ThreadIndex() { return threadIdx.x; }
SIMT_INSTRUCTION int ThreadCount() { return blockDim.x; }
SIMT_INSTRUCTION int BlockX() { return blockIdx.x; }
SIMT_INSTRUCTION int BlockY() { return blockIdx.y; }
SIMT_INSTRUCTION int BlockZ() { return blockIdx.z; }
SIMT_INSTRUCTION int GridX() { return gridDim.x; }
SIMT_INSTRUCTION int GridY() { return gridDim.y; }
SIMT_INSTRUCTION int GridZ() { return gridDim.z; }
SIMT_INSTRUCTION int LaneIndex() { return threadIdx.x % kWarpSize; }
SIMT_INSTRUCTION int WarpIndex() { return threadIdx.x / kWarpSize; }

SIMT_INSTRUCTION void SyncThreads() { __syncthreads(); }
SIMT_INSTRUCTION void SyncWarp() { __syncwarp(); }
SIMT_INSTRUCTION void ThreadFence() { __threadfence(); }

SIMT_INSTRUCTION void LetNextKernelBegin() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
SIMT_INSTRUCTION void WaitForPreviousKernels() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

template <typename T>
SIMT_INSTRUCTION T Shuffle(T value, int lane) {
  return __shfl_sync(0xffffffffu, value, lane);
}
template <typename T>
SIMT_INSTRUCTION T ShuffleUp(T value, int delta) {
  return __shfl_up_sync(0xffffffffu, value, delta);
}
template <typename T>
SIMT_INSTRUCTION T ShuffleDown(T value, int delta) {
  return __shfl_down_sync(0xffffffffu, value, delta);
}
template <typename T>
SIMT_INSTRUCTION T ShuffleXor(T value, int mask) {
  return __shfl_xor_sync(0xffffffffu, value, mask);
}
SIMT_INSTRUCTION uint32_t Ballot(bool bit) { return __ballot_sync(~0u, bit); }

template <typename T>
SIMT_INSTRUCTION T Load(const T* global) {
  return *global;
}
template <typename T>
SIMT_INSTRUCTION void Store(T* global, T value) {
  *global = value;
}
SIMT_INSTRUCTION Words4 LoadStream(const Words4* global) {
  Words4 v;
  asm("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
      : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
      : "l"(__cvta_generic_to_global(global)));
  return v;
}
SIMT_INSTRUCTION int32_t LoadCoherent(const int32_t* global) {
  return __ldcg(global);
}
SIMT_INSTRUCTION int32_t AtomicAdd(int32_t* global, int32_t value) {
  return atomicAdd(global, value);
}

SIMT_INSTRUCTION uint8_t* SharedMemory() {
  extern __shared__ __align__(1024) uint8_t dynamic_shared_memory[];
  return dynamic_shared_memory;
}
template <typename T>
SIMT_INSTRUCTION T LoadShared(const T* shared) {
  return *shared;
}
template <typename T>
SIMT_INSTRUCTION void StoreShared(T* shared, T value) {
  *shared = value;
}
SIMT_INSTRUCTION int32_t AtomicAddShared(int32_t* shared, int32_t value) {
  return atomicAdd(shared, value);
}

SIMT_INSTRUCTION uint32_t SharedAddress(const void* shared) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(shared));
}
SIMT_INSTRUCTION void CopyAsync(void* shared, const void* global, bool valid) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(
                   SharedAddress(shared)),
               "l"(__cvta_generic_to_global(global)), "r"(valid ? 16 : 0)
               : "memory");
}
SIMT_INSTRUCTION void CopyAsyncCommit() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
template <int kPending>
SIMT_INSTRUCTION void CopyAsyncWait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

SIMT_INSTRUCTION int32_t Dp4aU8S8(uint32_t a, uint32_t b, int32_t c) {
  int32_t d;
  asm("dp4a.u32.s32 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
  return d;
}
SIMT_INSTRUCTION int32_t Dp4aS8S8(uint32_t a, uint32_t b, int32_t c) {
  int32_t d;
  asm("dp4a.s32.s32 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
  return d;
}
SIMT_INSTRUCTION float Fma(float a, float b, float c) {
  return __fmaf_rn(a, b, c);
}
SIMT_INSTRUCTION float Divide(float a, float b) { return __fdiv_rn(a, b); }
SIMT_INSTRUCTION float Sqrt(float x) { return __fsqrt_rn(x); }
SIMT_INSTRUCTION float RoundEven(float x) { return rintf(x); }
SIMT_INSTRUCTION float HalfToFloat(uint16_t half) {
  return __half2float(__ushort_as_half(half));
}
SIMT_INSTRUCTION uint16_t FloatToHalf(float x) {
  return __half_as_ushort(__float2half_rn(x));
}
SIMT_INSTRUCTION uint32_t FloatBits(float x) { return __float_as_uint(x); }
SIMT_INSTRUCTION float FloatOfBits(uint32_t bits) {
  return __uint_as_float(bits);
}
SIMT_INSTRUCTION uint64_t MultiplyHigh(uint64_t a, uint64_t b) {
  return __umul64hi(a, b);
}

SIMT_INSTRUCTION void MmaU8S8(int32_t (&c)[4], const uint32_t (&a)[4],
                              const uint32_t (&b)[2]) {
  asm("mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
SIMT_INSTRUCTION void MmaS8S8(int32_t (&c)[4], const uint32_t (&a)[4],
                              const uint32_t (&b)[2]) {
  asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
SIMT_INSTRUCTION void MmaF16(float (&c)[4], const uint32_t (&a)[4],
                             const uint32_t (&b)[2]) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

template <int kCount>
SIMT_INSTRUCTION void LoadMatrix(uint32_t (&m)[kCount],
                                 const void* shared_row) {
  static_assert(kCount == 1 || kCount == 2 || kCount == 4);
  const uint32_t row = SharedAddress(shared_row);
  if constexpr (kCount == 1) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];"
                 : "=r"(m[0])
                 : "r"(row)
                 : "memory");
  } else if constexpr (kCount == 2) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                 : "=r"(m[0]), "=r"(m[1])
                 : "r"(row)
                 : "memory");
  } else {
    asm volatile(
        "ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
        : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
        : "r"(row)
        : "memory");
  }
}
template <int kCount>
SIMT_INSTRUCTION void LoadMatrixTransposed(uint32_t (&m)[kCount],
                                           const void* shared_row) {
  static_assert(kCount == 1 || kCount == 2 || kCount == 4);
  const uint32_t row = SharedAddress(shared_row);
  if constexpr (kCount == 1) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%0}, [%1];"
                 : "=r"(m[0])
                 : "r"(row)
                 : "memory");
  } else if constexpr (kCount == 2) {
    asm volatile(
        "ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
        : "=r"(m[0]), "=r"(m[1])
        : "r"(row)
        : "memory");
  } else {
    asm volatile(
        "ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, "
        "[%4];"
        : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
        : "r"(row)
        : "memory");
  }
}

// "Matrix Descriptor Format" of wgmma: address, leading and stride byte offsets
// in units of 16 bytes, and the swizzle. Rows of 128 bytes, eight of them apart
// by 1024; the leading offset is not used with a swizzle of 128 bytes.
SIMT_INSTRUCTION uint64_t WgmmaDescriptor(const void* shared) {
  const uint64_t address = SharedAddress(shared) & 0x3ffff;
  return address >> 4 | uint64_t{1} << 16 | uint64_t{1024 >> 4} << 32 |
         uint64_t{1} << 62;
}

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
SIMT_INSTRUCTION void WgmmaFence() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
SIMT_INSTRUCTION void WgmmaU8S8(int32_t (&c)[16][4], const uint32_t (&a)[4],
                                const void* shared_b) {
  // clang-format off
  asm volatile(
      "{ .reg .pred accumulate; setp.ne.b32 accumulate, 1, 0; "
      "wgmma.mma_async.sync.aligned.m64n128k32.s32.u8.s8 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
      "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
      "}, {%64, %65, %66, %67}, %68, accumulate; }"
      :
        "+r"(c[0][0]), "+r"(c[0][1]), "+r"(c[0][2]), "+r"(c[0][3]),
        "+r"(c[1][0]), "+r"(c[1][1]), "+r"(c[1][2]), "+r"(c[1][3]),
        "+r"(c[2][0]), "+r"(c[2][1]), "+r"(c[2][2]), "+r"(c[2][3]),
        "+r"(c[3][0]), "+r"(c[3][1]), "+r"(c[3][2]), "+r"(c[3][3]),
        "+r"(c[4][0]), "+r"(c[4][1]), "+r"(c[4][2]), "+r"(c[4][3]),
        "+r"(c[5][0]), "+r"(c[5][1]), "+r"(c[5][2]), "+r"(c[5][3]),
        "+r"(c[6][0]), "+r"(c[6][1]), "+r"(c[6][2]), "+r"(c[6][3]),
        "+r"(c[7][0]), "+r"(c[7][1]), "+r"(c[7][2]), "+r"(c[7][3]),
        "+r"(c[8][0]), "+r"(c[8][1]), "+r"(c[8][2]), "+r"(c[8][3]),
        "+r"(c[9][0]), "+r"(c[9][1]), "+r"(c[9][2]), "+r"(c[9][3]),
        "+r"(c[10][0]), "+r"(c[10][1]), "+r"(c[10][2]), "+r"(c[10][3]),
        "+r"(c[11][0]), "+r"(c[11][1]), "+r"(c[11][2]), "+r"(c[11][3]),
        "+r"(c[12][0]), "+r"(c[12][1]), "+r"(c[12][2]), "+r"(c[12][3]),
        "+r"(c[13][0]), "+r"(c[13][1]), "+r"(c[13][2]), "+r"(c[13][3]),
        "+r"(c[14][0]), "+r"(c[14][1]), "+r"(c[14][2]), "+r"(c[14][3]),
        "+r"(c[15][0]), "+r"(c[15][1]), "+r"(c[15][2]), "+r"(c[15][3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]),
        "l"(WgmmaDescriptor(shared_b)));
  // clang-format on
}
SIMT_INSTRUCTION void WgmmaCommit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <int kPending>
SIMT_INSTRUCTION void WgmmaWait(int32_t (&c)[16][4]) {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
  // c is not read earlier than here.
  SIMT_UNROLL
  for (int i = 0; i < 64; ++i)
    asm volatile("" : "+r"(c[i / 4][i % 4])::"memory");
}
SIMT_INSTRUCTION void FenceSharedForWgmma() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}
#else
SIMT_INSTRUCTION void WgmmaFence() { __trap(); }
SIMT_INSTRUCTION void WgmmaU8S8(int32_t (&)[16][4], const uint32_t (&)[4],
                                const void*) {
  __trap();
}
SIMT_INSTRUCTION void WgmmaCommit() { __trap(); }
template <int kPending>
SIMT_INSTRUCTION void WgmmaWait(int32_t (&)[16][4]) {
  __trap();
}
SIMT_INSTRUCTION void FenceSharedForWgmma() { __trap(); }
#endif

}  // namespace tern::simt

#endif  // KERNELS_CUDA_SIMT_DEVICE_H_
