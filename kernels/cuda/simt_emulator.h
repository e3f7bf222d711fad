#ifndef KERNELS_CUDA_SIMT_EMULATOR_H_
#define KERNELS_CUDA_SIMT_EMULATOR_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/cuda/launch_shape.h"

namespace tern::simt {

// Runs kernels of simt.h on the CPU, to test their index arithmetic, fragment
// layouts, barriers and reductions without a GPU. Each thread of a block is a
// fiber; blocks run one after the other, in an order drawn from the seed, as is
// the order in which a block's threads go on after they waited for each other.
//
// A call fails, with a sentence that names kernel block and thread, when
// - threads of a warp or block wait at different things, or leave while others
//   wait for them, or leave copies under way;
// - global memory outside what was allowed is touched, or shared memory outside
//   what was asked for, or either at an address of the wrong alignment;
// - shared memory is read that was never written or is still being copied, or
//   two threads touch it, one writing, without a barrier between;
// - what WgmmaU8S8() reads is written before it is waited for, or without the
//   fences that it needs.
// The first failure ends the call; outputs are then worthless.
//
// What it cannot show: speed; races through global memory; the rounding of
// MmaF16(); blocks that wait for each other never finish. Not thread-safe.
class Emulator {
 public:
  explicit Emulator(uint32_t seed = 1);
  ~Emulator();
  Emulator(const Emulator&) = delete;
  Emulator& operator=(const Emulator&) = delete;

  // Global memory that kernels may read, or read and write.
  template <typename T>
  void AllowRead(const T* begin, size_t count) {
    Allow(begin, count * sizeof(T), false);
  }
  template <typename T>
  void AllowWrite(T* begin, size_t count) {
    Allow(begin, count * sizeof(T), true);
  }

  // Runs all blocks. INVALID_ARGUMENT when `shape` is impossible or has more
  // threads than the kernel is made for, INTERNAL for what is listed above.
  template <class Kernel>
  absl::Status Run(const LaunchShape& shape,
                   const typename Kernel::Args& args) {
    static_assert(Kernel::kBlocksPerSm >= 1);
    if (shape.threads > Kernel::kThreads) {
      return absl::InvalidArgumentError(
          absl::StrCat("blocks of ", shape.threads, " threads, of at most ",
                       Kernel::kThreads));
    }
    return RunBlocks(shape, [&args] { Kernel::Run(args); });
  }

  // How many times LoadMatrix*() must have read shared memory once more, since
  // rows of a matrix lay in the same banks; of all calls so far.
  int64_t bank_conflicts() const;

  class State;

 private:
  void Allow(const void* begin, size_t bytes, bool writable);
  absl::Status RunBlocks(const LaunchShape& shape,
                         const std::function<void()>& kernel);

  std::unique_ptr<State> state_;
};

// What the functions of simt.h do on the host (simt_host.h). They belong to the
// thread of the running kernel.
namespace emulated {

// Things that threads wait for each other at.
enum class Collective {
  kSyncThreads,
  kSyncWarp,
  kShuffle,
  kBallot,
  kMmaU8S8,
  kMmaS8S8,
  kMmaF16,
  kLoadMatrix1,
  kLoadMatrix2,
  kLoadMatrix4,
  kLoadMatrixTransposed1,
  kLoadMatrixTransposed2,
  kLoadMatrixTransposed4,
  kWgmma,
};

struct Place {
  int thread;
  int threads;
  int block[3];
  int grid[3];
};
const Place& Here();

// Waits for all threads of the block.
void WaitForBlock();

// Waits for all lanes of the warp; `combine` is then called once with the
// operands of lanes 0..31, to write results into them.
void WaitForWarp(Collective what, void* operands,
                 void (*combine)(void* const* lanes));

// Ends the call when the access is wrong. `n` is also the alignment.
void CheckGlobal(const void* address, size_t n, bool write);
void CheckSharedRead(const void* address, size_t n);
void CheckSharedWrite(const void* address, size_t n, bool atomic);

uint8_t* SharedMemoryBegin();
void CountBankConflicts(int n);

// Copies arrive when they are waited for.
void BeginCopy(void* shared, const void* global, bool valid);
void CommitCopies();
void WaitForCopies(int pending);

// The same for all four warps of a warpgroup.
void WaitForWarpgroup(Collective what, void* operands,
                      void (*combine)(void* const* lanes));

// Products arrive when they are waited for: n_sums numbers of `product` are
// added to `sums`. `chunks` are the pieces of 16 bytes of shared memory that
// they were made of, which must be the same until then; given by one thread.
void CheckTensorCoreRead(const void* chunk);
void FenceProducts();
void AddLater(int32_t* sums, const int32_t* product, int n_sums,
              const uint8_t* const* chunks, int n_chunks);
void CommitProducts();
void WaitForProducts(int pending);
void FenceShared();

}  // namespace emulated
}  // namespace tern::simt

#endif  // KERNELS_CUDA_SIMT_EMULATOR_H_
