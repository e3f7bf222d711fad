#ifndef KERNELS_CUDA_SIMT_HOST_H_
#define KERNELS_CUDA_SIMT_HOST_H_

// The templates of simt.h for the emulator. Only included by it, where the
// compiler is not nvcc; the other functions are in simt_host.cc.

#include <cstdint>
#include <cstring>

#include "kernels/cuda/simt_emulator.h"

namespace tern::simt {
namespace emulated {

// The bits of lane `lane` of the warp.
uint64_t ShuffleBits(uint64_t bits, int lane);
// Matrices of LoadMatrix, transposed or not.
void LoadMatrices(uint32_t* m, int count, const void* row, bool transposed);

template <typename T>
T ShuffleFrom(T value, int lane) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8);
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  bits = ShuffleBits(bits, lane);
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}

}  // namespace emulated

template <typename T>
T Shuffle(T value, int lane) {
  return emulated::ShuffleFrom(value, lane & (kWarpSize - 1));
}
template <typename T>
T ShuffleUp(T value, int delta) {
  const int from = LaneIndex() - delta;
  return emulated::ShuffleFrom(value, from < 0 ? LaneIndex() : from);
}
template <typename T>
T ShuffleDown(T value, int delta) {
  const int from = LaneIndex() + delta;
  return emulated::ShuffleFrom(value, from < kWarpSize ? from : LaneIndex());
}
template <typename T>
T ShuffleXor(T value, int mask) {
  return emulated::ShuffleFrom(value, LaneIndex() ^ mask);
}

template <typename T>
T Load(const T* global) {
  emulated::CheckGlobal(global, sizeof(T), /*write=*/false);
  return *global;
}
template <typename T>
void Store(T* global, T value) {
  emulated::CheckGlobal(global, sizeof(T), /*write=*/true);
  *global = value;
}
template <typename T>
T LoadShared(const T* shared) {
  emulated::CheckSharedRead(shared, sizeof(T));
  T value;
  std::memcpy(&value, shared, sizeof(T));
  return value;
}
template <typename T>
void StoreShared(T* shared, T value) {
  emulated::CheckSharedWrite(shared, sizeof(T), /*atomic=*/false);
  std::memcpy(shared, &value, sizeof(T));
}

template <int kPending>
void CopyAsyncWait() {
  emulated::WaitForCopies(kPending);
}

template <int kPending>
void WgmmaWait(int32_t (&)[16][4]) {
  emulated::WaitForProducts(kPending);
}

template <int kCount>
void LoadMatrix(uint32_t (&m)[kCount], const void* shared_row) {
  static_assert(kCount == 1 || kCount == 2 || kCount == 4);
  emulated::LoadMatrices(m, kCount, shared_row, /*transposed=*/false);
}
template <int kCount>
void LoadMatrixTransposed(uint32_t (&m)[kCount], const void* shared_row) {
  static_assert(kCount == 1 || kCount == 2 || kCount == 4);
  emulated::LoadMatrices(m, kCount, shared_row, /*transposed=*/true);
}

}  // namespace tern::simt

#endif  // KERNELS_CUDA_SIMT_HOST_H_
