// The functions of simt.h in plain C++, for the emulator. Where values of a
// fragment lie follows the text of the PTX ISA that simt.h quotes.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "kernels/cuda/simt.h"
#include "kernels/cuda/simt_emulator.h"
#include "kernels/float16.h"

namespace tern::simt {
namespace {

using emulated::Collective;

constexpr int kMatrixRows = 8;
constexpr int kMatrixRowBytes = 16;

uint32_t Byte(uint32_t word, int i) { return word >> (8 * i) & 0xff; }
int SignedByte(uint32_t word, int i) {
  return static_cast<int8_t>(Byte(word, i));
}

struct ShuffleOperands {
  uint64_t bits;
  int lane;
  uint64_t result;
};

void CombineShuffle(void* const* lanes) {
  for (int i = 0; i < kWarpSize; ++i) {
    auto* self = static_cast<ShuffleOperands*>(lanes[i]);
    self->result = static_cast<ShuffleOperands*>(lanes[self->lane])->bits;
  }
}

struct BallotOperands {
  bool bit;
  uint32_t result;
};

void CombineBallot(void* const* lanes) {
  uint32_t bits = 0;
  for (int i = 0; i < kWarpSize; ++i) {
    bits |= uint32_t{static_cast<BallotOperands*>(lanes[i])->bit} << i;
  }
  for (int i = 0; i < kWarpSize; ++i) {
    static_cast<BallotOperands*>(lanes[i])->result = bits;
  }
}

// One lane's part of d[16][8] = a[16][K] * b[K][8] + c.
template <typename T>
struct MmaOperands {
  T* c;
  const uint32_t* a;
  const uint32_t* b;
};

// PTX ISA, "Matrix Fragments for mma.m16n8k32": the element of A at (row,
// column) is byte column % 4 of register (row >= 8) + 2 * (column >= 16) of
// lane (row % 8) * 4 + column % 16 / 4; that of B at (row, column) byte row % 4
// of register (row >= 16) of lane column * 4 + row % 16 / 4; that of C at (row,
// column) register column % 2 + 2 * (row >= 8) of lane (row % 8) * 4 + column /
// 2.
template <bool kSignedA>
void CombineMmaS8(void* const* lanes) {
  auto lane = [&](int i) -> const MmaOperands<int32_t>& {
    return *static_cast<const MmaOperands<int32_t>*>(lanes[i]);
  };
  int a[16][32];
  int b[32][8];
  for (int row = 0; row < 16; ++row) {
    for (int k = 0; k < 32; ++k) {
      const uint32_t word =
          lane(row % 8 * 4 + k % 16 / 4).a[(row >= 8) + 2 * (k >= 16)];
      a[row][k] = kSignedA ? SignedByte(word, k % 4)
                           : static_cast<int>(Byte(word, k % 4));
    }
  }
  for (int k = 0; k < 32; ++k) {
    for (int column = 0; column < 8; ++column) {
      b[k][column] =
          SignedByte(lane(column * 4 + k % 16 / 4).b[k >= 16], k % 4);
    }
  }
  for (int row = 0; row < 16; ++row) {
    for (int column = 0; column < 8; ++column) {
      int32_t& c =
          lane(row % 8 * 4 + column / 2).c[column % 2 + 2 * (row >= 8)];
      // Sums wrap, as those of the instruction without .satfinite do.
      uint32_t sum = static_cast<uint32_t>(c);
      for (int k = 0; k < 32; ++k) {
        sum += static_cast<uint32_t>(a[row][k] * b[k][column]);
      }
      c = static_cast<int32_t>(sum);
    }
  }
}

double Half(uint32_t word, int i) {
  return tern::HalfToFloat(static_cast<uint16_t>(word >> (16 * i)));
}

// PTX ISA, "Matrix Fragments for mma.m16n8k16 with floating point type": as
// above with two elements in a register instead of four. Products of two
// float16 and sums of so few of them are exact in float64 for all but far
// apart magnitudes.
void CombineMmaF16(void* const* lanes) {
  auto lane = [&](int i) -> const MmaOperands<float>& {
    return *static_cast<const MmaOperands<float>*>(lanes[i]);
  };
  double a[16][16];
  double b[16][8];
  for (int row = 0; row < 16; ++row) {
    for (int k = 0; k < 16; ++k) {
      a[row][k] = Half(
          lane(row % 8 * 4 + k % 8 / 2).a[(row >= 8) + 2 * (k >= 8)], k % 2);
    }
  }
  for (int k = 0; k < 16; ++k) {
    for (int column = 0; column < 8; ++column) {
      b[k][column] = Half(lane(column * 4 + k % 8 / 2).b[k >= 8], k % 2);
    }
  }
  for (int row = 0; row < 16; ++row) {
    for (int column = 0; column < 8; ++column) {
      float& c = lane(row % 8 * 4 + column / 2).c[column % 2 + 2 * (row >= 8)];
      double sum = c;
      for (int k = 0; k < 16; ++k) sum += a[row][k] * b[k][column];
      c = static_cast<float>(sum);
    }
  }
}

struct LoadMatrixOperands {
  uint32_t* m;
  const uint8_t* row;
};

// How many more times shared memory is read for eight rows of 16 bytes than for
// rows that lie in different banks: of 4 bytes each, 32 of them.
int BankConflicts(const uint8_t* const* rows) {
  int conflicts = 0;
  for (int i = 0; i < kMatrixRows; ++i) {
    int same_banks = 0;
    for (int j = 0; j < i; ++j) {
      if (rows[i] == rows[j]) {
        same_banks = 0;
        break;
      }
      same_banks += (rows[i] - rows[j]) % 128 == 0;
    }
    conflicts = std::max(conflicts, same_banks);
  }
  return conflicts;
}

template <int kCount, bool kTransposed>
void CombineLoadMatrix(void* const* lanes) {
  auto lane = [&](int i) -> const LoadMatrixOperands& {
    return *static_cast<const LoadMatrixOperands*>(lanes[i]);
  };
  for (int matrix = 0; matrix < kCount; ++matrix) {
    uint16_t halves[kMatrixRows][kMatrixRowBytes / 2];
    const uint8_t* rows[kMatrixRows];
    for (int row = 0; row < kMatrixRows; ++row) {
      rows[row] = lane(matrix * kMatrixRows + row).row;
      std::memcpy(halves[row], rows[row], kMatrixRowBytes);
    }
    emulated::CountBankConflicts(BankConflicts(rows));
    for (int i = 0; i < kWarpSize; ++i) {
      const int g = i / 4;
      const int t = i % 4;
      const uint32_t low = kTransposed ? halves[2 * t][g] : halves[g][2 * t];
      const uint32_t high =
          kTransposed ? halves[2 * t + 1][g] : halves[g][2 * t + 1];
      lane(i).m[matrix] = low | high << 16;
    }
  }
}

constexpr int kWgmmaRows = 64;
constexpr int kWgmmaColumns = 128;
constexpr int kWgmmaDepth = 32;

struct WgmmaOperands {
  const uint32_t* a;
  const uint8_t* b;
  int32_t product[kWgmmaColumns / 2];
};

// The 16 bytes that begin at depth 16 * half of column `column` of b: PTX ISA,
// "Shared Memory Matrix Layout", K-major with a swizzle of 128 bytes.
const uint8_t* WgmmaChunk(const uint8_t* b, int column, int half) {
  const uint8_t* const base = SharedMemory();
  const size_t linear = b - base + column * 128 + half * 16;
  return base + (linear ^ (linear >> 7 & 7) << 4);
}

// PTX ISA, "Register Fragments for wgmma.mma_async.m64nNk32": each warp has 16
// rows, and in them the fragments of mma.m16n8k32, those of D for every 8
// columns.
void CombineWgmma(void* const* lanes) {
  auto lane = [&](int i) -> WgmmaOperands& {
    return *static_cast<WgmmaOperands*>(lanes[i]);
  };
  static thread_local int8_t b[kWgmmaColumns][kWgmmaDepth];
  for (int column = 0; column < kWgmmaColumns; ++column) {
    for (int half = 0; half < 2; ++half) {
      std::memcpy(b[column] + 16 * half, WgmmaChunk(lane(0).b, column, half),
                  16);
    }
  }
  for (int row = 0; row < kWgmmaRows; ++row) {
    const int first = row / 16 * kWarpSize + row % 8 * 4;  // lane of the row
    const int lower = row % 16 / 8;
    int a[kWgmmaDepth];
    for (int k = 0; k < kWgmmaDepth; ++k) {
      a[k] = static_cast<int>(
          Byte(lane(first + k % 16 / 4).a[lower + 2 * (k / 16)], k % 4));
    }
    for (int column = 0; column < kWgmmaColumns; ++column) {
      int32_t sum = 0;
      for (int k = 0; k < kWgmmaDepth; ++k) sum += a[k] * b[column][k];
      lane(first + column % 8 / 2)
          .product[column / 8 * 4 + lower * 2 + column % 2] = sum;
    }
  }
}

template <typename T>
void Mma(Collective what, T* c, const uint32_t* a, const uint32_t* b,
         void (*combine)(void* const* lanes)) {
  MmaOperands<T> operands = {c, a, b};
  emulated::WaitForWarp(what, &operands, combine);
}

}  // namespace

namespace emulated {

uint64_t ShuffleBits(uint64_t bits, int lane) {
  ShuffleOperands operands = {bits, lane, 0};
  WaitForWarp(Collective::kShuffle, &operands, &CombineShuffle);
  return operands.result;
}

void LoadMatrices(uint32_t* m, int count, const void* row, bool transposed) {
  if (LaneIndex() < kMatrixRows * count) {
    CheckSharedRead(row, kMatrixRowBytes);
  }
  LoadMatrixOperands operands = {m, static_cast<const uint8_t*>(row)};
  if (transposed) {
    WaitForWarp(count == 1   ? Collective::kLoadMatrixTransposed1
                : count == 2 ? Collective::kLoadMatrixTransposed2
                             : Collective::kLoadMatrixTransposed4,
                &operands,
                count == 1   ? &CombineLoadMatrix<1, true>
                : count == 2 ? &CombineLoadMatrix<2, true>
                             : &CombineLoadMatrix<4, true>);
  } else {
    WaitForWarp(count == 1   ? Collective::kLoadMatrix1
                : count == 2 ? Collective::kLoadMatrix2
                             : Collective::kLoadMatrix4,
                &operands,
                count == 1   ? &CombineLoadMatrix<1, false>
                : count == 2 ? &CombineLoadMatrix<2, false>
                             : &CombineLoadMatrix<4, false>);
  }
}

}  // namespace emulated

int ThreadIndex() { return emulated::Here().thread; }
int ThreadCount() { return emulated::Here().threads; }
int BlockX() { return emulated::Here().block[0]; }
int BlockY() { return emulated::Here().block[1]; }
int BlockZ() { return emulated::Here().block[2]; }
int GridX() { return emulated::Here().grid[0]; }
int GridY() { return emulated::Here().grid[1]; }
int GridZ() { return emulated::Here().grid[2]; }
int LaneIndex() { return ThreadIndex() % kWarpSize; }
int WarpIndex() { return ThreadIndex() / kWarpSize; }

void SyncThreads() { emulated::WaitForBlock(); }
void SyncWarp() {
  emulated::WaitForWarp(Collective::kSyncWarp, nullptr, nullptr);
}
void ThreadFence() {}
// The emulator runs one kernel at a time.
void LetNextKernelBegin() {}
void WaitForPreviousKernels() {}

uint32_t Ballot(bool bit) {
  BallotOperands operands = {bit, 0};
  emulated::WaitForWarp(Collective::kBallot, &operands, &CombineBallot);
  return operands.result;
}

Words4 LoadStream(const Words4* global) { return Load(global); }
int32_t LoadCoherent(const int32_t* global) { return Load(global); }

int32_t AtomicAdd(int32_t* global, int32_t value) {
  emulated::CheckGlobal(global, sizeof(*global), /*write=*/true);
  const int32_t before = *global;
  *global = before + value;
  return before;
}

uint8_t* SharedMemory() { return emulated::SharedMemoryBegin(); }

int32_t AtomicAddShared(int32_t* shared, int32_t value) {
  emulated::CheckSharedWrite(shared, sizeof(*shared), /*atomic=*/true);
  const int32_t before = *shared;
  *shared = before + value;
  return before;
}

void CopyAsync(void* shared, const void* global, bool valid) {
  emulated::BeginCopy(shared, global, valid);
}
void CopyAsyncCommit() { emulated::CommitCopies(); }

int32_t Dp4aU8S8(uint32_t a, uint32_t b, int32_t c) {
  for (int i = 0; i < 4; ++i)
    c += static_cast<int>(Byte(a, i)) * SignedByte(b, i);
  return c;
}
int32_t Dp4aS8S8(uint32_t a, uint32_t b, int32_t c) {
  for (int i = 0; i < 4; ++i) c += SignedByte(a, i) * SignedByte(b, i);
  return c;
}
float Fma(float a, float b, float c) { return std::fma(a, b, c); }
float Divide(float a, float b) { return a / b; }
float Sqrt(float x) { return std::sqrt(x); }
float RoundEven(float x) { return std::nearbyint(x); }
float HalfToFloat(uint16_t half) { return tern::HalfToFloat(half); }
uint16_t FloatToHalf(float x) { return tern::FloatToHalf(x); }
uint32_t FloatBits(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof(bits));
  return bits;
}
float FloatOfBits(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof(x));
  return x;
}
uint64_t MultiplyHigh(uint64_t a, uint64_t b) {
  return static_cast<uint64_t>(static_cast<unsigned __int128>(a) * b >> 64);
}

void MmaU8S8(int32_t (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  Mma(Collective::kMmaU8S8, c, a, b, &CombineMmaS8<false>);
}
void MmaS8S8(int32_t (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  Mma(Collective::kMmaS8S8, c, a, b, &CombineMmaS8<true>);
}
void MmaF16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  Mma(Collective::kMmaF16, c, a, b, &CombineMmaF16);
}

void WgmmaFence() { emulated::FenceProducts(); }
void WgmmaU8S8(int32_t (&c)[16][4], const uint32_t (&a)[4],
               const void* shared_b) {
  WgmmaOperands operands = {a, static_cast<const uint8_t*>(shared_b), {}};
  const uint8_t* chunks[2 * kWgmmaColumns];
  int n_chunks = 0;
  if (ThreadIndex() % (4 * kWarpSize) == 0) {
    for (; n_chunks < 2 * kWgmmaColumns; ++n_chunks) {
      chunks[n_chunks] = WgmmaChunk(operands.b, n_chunks / 2, n_chunks % 2);
      emulated::CheckTensorCoreRead(chunks[n_chunks]);
    }
  }
  emulated::WaitForWarpgroup(Collective::kWgmma, &operands, &CombineWgmma);
  emulated::AddLater(&c[0][0], operands.product, kWgmmaColumns / 2, chunks,
                     n_chunks);
}
void WgmmaCommit() { emulated::CommitProducts(); }
void FenceSharedForWgmma() { emulated::FenceShared(); }

}  // namespace tern::simt
