#ifndef KERNELS_CUDA_EMULATOR_MEMORY_H_
#define KERNELS_CUDA_EMULATOR_MEMORY_H_

#include <cstddef>
#include <cstdint>
#include <vector>

namespace tern::simt {

// Who does something to memory, and when: between which two barriers.
struct Moment {
  int thread = -1;           // of the block; -1: nobody yet
  uint32_t block_epoch = 0;  // SyncThreads() so far
  uint32_t warp_epoch = 0;   // SyncWarp() and SyncThreads() of its warp so far
};

// The shared memory of a running block, and who last touched each byte of it:
// finds accesses by two threads, one of them a write, that no barrier orders,
// whatever order the emulator happened to run them in. Not thread-safe.
//
// The checks return null, or what is wrong.
class SharedMemoryChecker {
 public:
  // Forgets everything; all bytes are unwritten.
  void Reset(size_t bytes);

  uint8_t* data() { return data_; }
  size_t bytes() const { return bytes_.size(); }

  const char* Read(const Moment& now, size_t offset, size_t n);
  // Atomic operations are ordered among themselves.
  const char* Write(const Moment& now, size_t offset, size_t n, bool atomic);
  // From the beginning of an asynchronous copy to its arrival nobody touches
  // the bytes.
  const char* BeginCopy(const Moment& now, size_t offset, size_t n);
  void EndCopy(const Moment& now, size_t offset, size_t n);
  // Read by tensor cores, which see what was written before its writer's
  // Fence().
  const char* ReadByTensorCores(const Moment& now, size_t offset, size_t n);
  void Fence(int thread);

 private:
  struct Byte {
    Moment write;
    Moment read;              // the last one
    uint32_t write_time = 0;  // among writes and fences of the block
    bool atomic = false;
    bool copying = false;
    bool read_by_many = false;   // threads of one warp, since the last write
    bool read_by_warps = false;  // of several warps, in read.block_epoch
  };

  std::vector<Byte> bytes_;
  uint32_t time_ = 0;
  std::vector<uint32_t> fence_times_;  // of each thread
  std::vector<uint8_t> storage_;
  uint8_t* data_ = nullptr;  // 1024-byte aligned, in storage_
};

// The ranges of global memory that a kernel may touch. Not thread-safe.
class GlobalMemoryChecker {
 public:
  void Allow(const void* begin, size_t bytes, bool writable);
  // Whether [begin, begin + bytes) lies within one range.
  bool Allowed(const void* begin, size_t bytes, bool write);

 private:
  struct Range {
    uintptr_t begin;
    uintptr_t end;
    bool writable;
  };

  std::vector<Range> ranges_;
  size_t last_ = 0;  // where the last access was
};

}  // namespace tern::simt

#endif  // KERNELS_CUDA_EMULATOR_MEMORY_H_
