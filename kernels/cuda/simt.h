#ifndef KERNELS_CUDA_SIMT_H_
#define KERNELS_CUDA_SIMT_H_

#include <cstddef>
#include <cstdint>
#include <cstring>

// What kernels use of a GPU: one thin function for each instruction. nvcc
// compiles them to that instruction (simt_device.h); every other compiler to a
// call of the emulator (simt_host.h, simt_emulator.h), so that the very source
// of a kernel also runs, and is checked, on a machine without a GPU.
//
// How to write a kernel. In a header `<op>_kernel.h` without any CUDA include:
//
//   struct ScaleKernel {
//     static constexpr int kThreads = 256;  // most threads of a block
//     static constexpr int kBlocksPerSm = 1;  // that must fit, for registers
//     struct Args {  // plain data, copied to the device
//       const float* x;
//       float* y;
//       int n;
//     };
//     SIMT_DEVICE static void Run(const Args& args) {
//       const int i = simt::BlockX() * simt::ThreadCount() +
//                     simt::ThreadIndex();
//       if (i < args.n) simt::Store(&args.y[i], 2 * simt::Load(&args.x[i]));
//     }
//   };
//
// A test runs it by Emulator::Run<ScaleKernel>(shape, args); a .cu file by
// simt::Launch<ScaleKernel>(shape, args, stream) of launch.h. Rules:
//
// - All memory but local variables is touched through Load*, Store*, Copy* and
//   AtomicAdd*: these find accesses out of bounds, unaligned ones, races in
//   shared memory and what was never written there.
// - Shared memory is what LaunchShape::shared_bytes asks for; carve it by hand
//   from SharedMemory(). No `__shared__`, no static variables.
// - What is called "of the warp" or "of the block" must be reached by all its
//   threads; conditions around it must be the same for them all.
// - Code is compiled without contraction (-fmad=false, -ffp-contract=off): a
//   multiply and an add fuse only in Fma(). `/` and sqrt are IEEE's.
// - Arrays that should be registers are indexed by constants after unrolling
//   (SIMT_UNROLL before the loop).
//
// SIMT_DEVICE stands before every function of a kernel.
#ifdef __CUDACC__
#define SIMT_DEVICE __device__ __forceinline__
#define SIMT_INSTRUCTION __device__ __forceinline__
#define SIMT_UNROLL _Pragma("unroll")
#else
#define SIMT_DEVICE inline
#define SIMT_INSTRUCTION  // defined in simt_host.cc
#define SIMT_UNROLL
#endif

namespace tern::simt {

inline constexpr int kWarpSize = 32;

// Four words that are loaded and stored at once.
struct alignas(16) Words4 {
  uint32_t x, y, z, w;
};

// ---- Where the thread is.

SIMT_INSTRUCTION int ThreadIndex();  // in its block
SIMT_INSTRUCTION int ThreadCount();  // of a block
SIMT_INSTRUCTION int BlockX();
SIMT_INSTRUCTION int BlockY();
SIMT_INSTRUCTION int BlockZ();
SIMT_INSTRUCTION int GridX();  // blocks
SIMT_INSTRUCTION int GridY();
SIMT_INSTRUCTION int GridZ();
SIMT_INSTRUCTION int LaneIndex();  // in its warp
SIMT_INSTRUCTION int WarpIndex();  // in its block

// ---- Waiting.

// Waits for all threads of the block; what they wrote before is seen after.
SIMT_INSTRUCTION void SyncThreads();
// The same for the warp.
SIMT_INSTRUCTION void SyncWarp();
// What this thread wrote to global memory before is seen by whoever sees what
// it writes after.
SIMT_INSTRUCTION void ThreadFence();

// ---- Kernels that overlap (LaunchOverlapped() of launch.h), on sm_90 and
// later; elsewhere, and in kernels launched otherwise, these do nothing.
// Source: PTX ISA, "griddepcontrol".

// Lets the next kernel of the stream begin as soon as every block has called
// this or ended.
SIMT_INSTRUCTION void LetNextKernelBegin();
// Waits until the kernels before this one are done. Comes before all that reads
// what they write or writes what they read; constants, such as weights, may be
// loaded earlier.
SIMT_INSTRUCTION void WaitForPreviousKernels();

// ---- Of the warp: every lane calls, with its own value. T has 4 or 8 bytes.

// The value of `lane`, of the lane `delta` above or below (one's own beyond the
// warp), of lane (own ^ mask).
template <typename T>
SIMT_INSTRUCTION T Shuffle(T value, int lane);
template <typename T>
SIMT_INSTRUCTION T ShuffleUp(T value, int delta);
template <typename T>
SIMT_INSTRUCTION T ShuffleDown(T value, int delta);
template <typename T>
SIMT_INSTRUCTION T ShuffleXor(T value, int mask);
// Bit i is lane i's.
SIMT_INSTRUCTION uint32_t Ballot(bool bit);

// ---- Memory. Pointers are aligned to sizeof(T), which is 1, 2, 4, 8 or 16.

template <typename T>
SIMT_INSTRUCTION T Load(const T* global);
template <typename T>
SIMT_INSTRUCTION void Store(T* global, T value);
// Of what no thread writes during the kernel, and what is read once: it does
// not stay in L1 (ld.global.nc.L1::no_allocate, 16 bytes).
SIMT_INSTRUCTION Words4 LoadStream(const Words4* global);
// Of what other blocks of this kernel may have written (ld.global.cg: not from
// L1, which does not know of it).
SIMT_INSTRUCTION int32_t LoadCoherent(const int32_t* global);
// Adds in one step; returns what was there before.
SIMT_INSTRUCTION int32_t AtomicAdd(int32_t* global, int32_t value);

// The block's dynamic shared memory, aligned to 1024 bytes.
SIMT_INSTRUCTION uint8_t* SharedMemory();
template <typename T>
SIMT_INSTRUCTION T LoadShared(const T* shared);
template <typename T>
SIMT_INSTRUCTION void StoreShared(T* shared, T value);
SIMT_INSTRUCTION int32_t AtomicAddShared(int32_t* shared, int32_t value);

// Begins to copy 16 aligned bytes to shared memory, or zeros when !valid
// (`global` is then not read). Source: PTX ISA, "cp.async", .cg.
SIMT_INSTRUCTION void CopyAsync(void* shared, const void* global,
                                bool valid = true);
// Ends a group of this thread's copies. Groups may be empty.
SIMT_INSTRUCTION void CopyAsyncCommit();
// Waits until at most `kPending` groups of this thread are still under way. Its
// own copies are then there; those of other threads after SyncThreads().
template <int kPending>
SIMT_INSTRUCTION void CopyAsyncWait();

// ---- Numbers.

// c + the sum over the four bytes of a[i] * b[i], a unsigned or signed and b
// signed.
SIMT_INSTRUCTION int32_t Dp4aU8S8(uint32_t a, uint32_t b, int32_t c);
SIMT_INSTRUCTION int32_t Dp4aS8S8(uint32_t a, uint32_t b, int32_t c);
// a * b + c with one rounding, in float32.
SIMT_INSTRUCTION float Fma(float a, float b, float c);
// Correctly rounded, whatever the compiler's flags.
SIMT_INSTRUCTION float Divide(float a, float b);
SIMT_INSTRUCTION float Sqrt(float x);
// To an integer, ties to even.
SIMT_INSTRUCTION float RoundEven(float x);
SIMT_INSTRUCTION float HalfToFloat(uint16_t half);
// Ties to even; overflow gives infinity.
SIMT_INSTRUCTION uint16_t FloatToHalf(float x);
SIMT_INSTRUCTION uint32_t FloatBits(float x);
SIMT_INSTRUCTION float FloatOfBits(uint32_t bits);
// The high half of the 128-bit product.
SIMT_INSTRUCTION uint64_t MultiplyHigh(uint64_t a, uint64_t b);

// ---- Matrices, of the warp. Fragments are spread over the lanes as PTX ISA,
// "Matrix Fragments for mma.m16n8k32" and "... mma.m16n8k16 with floating point
// type", says. With g = lane / 4 and t = lane % 4:
//
//   c[i]   row g (i < 2) or g + 8, column 2 * t + i % 2
//   8 bit, byte j of
//     a[i] row g (i = 0, 2) or g + 8 (i = 1, 3),
//          column 4 * t + j (i < 2) or 16 + 4 * t + j
//     b[i] row 4 * t + j (i = 0) or 16 + 4 * t + j, column g
//   16 bit, half j of
//     a[i] row g (i = 0, 2) or g + 8 (i = 1, 3),
//          column 2 * t + j (i < 2) or 8 + 2 * t + j
//     b[i] row 2 * t + j (i = 0) or 8 + 2 * t + j, column g

// c[16][8] += a[16][32] * b[32][8], in int32.
SIMT_INSTRUCTION void MmaU8S8(int32_t (&c)[4], const uint32_t (&a)[4],
                              const uint32_t (&b)[2]);
SIMT_INSTRUCTION void MmaS8S8(int32_t (&c)[4], const uint32_t (&a)[4],
                              const uint32_t (&b)[2]);
// c[16][8] += a[16][16] * b[16][8], float16 to float32. How the hardware orders
// and rounds the sum is not documented; the emulator rounds once.
SIMT_INSTRUCTION void MmaF16(float (&c)[4], const uint32_t (&a)[4],
                             const uint32_t (&b)[2]);

// Loads kCount (1, 2 or 4) matrices of 8 rows of 16 bytes. Lanes 8 * i .. 8 * i
// + 7 give the addresses of the rows of matrix i; others' are ignored. m[i] is
// bytes 4 * t .. 4 * t + 3 of row g. Transposed: half j of m[i] is half g of
// row 2 * t + j. Source: PTX ISA, "ldmatrix".
template <int kCount>
SIMT_INSTRUCTION void LoadMatrix(uint32_t (&m)[kCount], const void* shared_row);
template <int kCount>
SIMT_INSTRUCTION void LoadMatrixTransposed(uint32_t (&m)[kCount],
                                           const void* shared_row);

// ---- Matrices of a warpgroup: 128 threads, from a multiple of 128. sm_90a
// only; elsewhere on a device these end the kernel. What they do is under way
// until it is waited for: until then c and a must not be touched, nor b
// written. Source: PTX ISA, "Asynchronous Warpgroup Level Matrix Instructions".

// Before the first WgmmaU8S8() of a group: what the thread did to c and a is
// done.
SIMT_INSTRUCTION void WgmmaFence();
// Begins c[64][128] += a[64][32] * b[32][128], in int32. a and c are spread
// over each warp as those of MmaU8S8, rows 16 * (warp % 4) and on; c[j] is
// columns 8 * j .. 8 * j + 7. b[k][n] is byte n * 128 + k from shared_b, in the
// 128-byte swizzle: bits 9:7 of the address in shared memory are xored to bits
// 6:4. REQUIRES: shared_b is 0, 32, 64 or 96 bytes beyond a multiple of 1024.
SIMT_INSTRUCTION void WgmmaU8S8(int32_t (&c)[16][4], const uint32_t (&a)[4],
                                const void* shared_b);
// Ends a group.
SIMT_INSTRUCTION void WgmmaCommit();
// Waits until at most kPending groups are under way. c is that of them all.
template <int kPending>
SIMT_INSTRUCTION void WgmmaWait(int32_t (&c)[16][4]);
// What this thread wrote to shared memory, also by copies that arrived, is seen
// by WgmmaU8S8() of threads that it meets at a barrier after this.
SIMT_INSTRUCTION void FenceSharedForWgmma();

}  // namespace tern::simt

#ifdef __CUDACC__
#include "kernels/cuda/simt_device.h"  // IWYU pragma: export
#else
#include "kernels/cuda/simt_host.h"  // IWYU pragma: export
#endif

#endif  // KERNELS_CUDA_SIMT_H_
