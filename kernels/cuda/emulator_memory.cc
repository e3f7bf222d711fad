#include "kernels/cuda/emulator_memory.h"

namespace tern::simt {
namespace {

constexpr size_t kSharedAlignment = 1024;
constexpr int kWarp = 32;

bool SameWarp(const Moment& a, const Moment& b) {
  return a.thread / kWarp == b.thread / kWarp;
}

// Whether what was done `before` has been waited for by the thread of `now`.
bool Ordered(const Moment& before, const Moment& now) {
  if (before.thread < 0 || before.thread == now.thread) return true;
  if (before.block_epoch < now.block_epoch) return true;
  return SameWarp(before, now) && before.warp_epoch < now.warp_epoch;
}

}  // namespace

void SharedMemoryChecker::Reset(size_t bytes) {
  bytes_.assign(bytes, Byte());
  time_ = 0;
  fence_times_.clear();
  // What was never written must not look like zeros to whom asks for it.
  storage_.assign(bytes + kSharedAlignment, 0xa5);
  const auto address = reinterpret_cast<uintptr_t>(storage_.data());
  data_ = storage_.data() +
          (kSharedAlignment - address % kSharedAlignment) % kSharedAlignment;
}

const char* SharedMemoryChecker::Read(const Moment& now, size_t offset,
                                      size_t n) {
  for (size_t i = offset; i < offset + n; ++i) {
    Byte& byte = bytes_[i];
    if (byte.copying) return "reads what is still being copied";
    if (byte.write.thread < 0) return "reads what was never written";
    if (!Ordered(byte.write, now)) {
      return "reads what another thread wrote, without a barrier between";
    }
    const bool this_epoch =
        byte.read.thread >= 0 && byte.read.block_epoch == now.block_epoch;
    byte.read_by_warps =
        this_epoch && (byte.read_by_warps || !SameWarp(byte.read, now));
    byte.read_by_many = this_epoch && SameWarp(byte.read, now) &&
                        byte.read.warp_epoch == now.warp_epoch &&
                        (byte.read_by_many || byte.read.thread != now.thread);
    byte.read = now;
  }
  return nullptr;
}

const char* SharedMemoryChecker::Write(const Moment& now, size_t offset,
                                       size_t n, bool atomic) {
  for (size_t i = offset; i < offset + n; ++i) {
    Byte& byte = bytes_[i];
    if (byte.copying) return "writes what is still being copied";
    if (!(atomic && byte.atomic) && !Ordered(byte.write, now)) {
      return "writes what another thread wrote, without a barrier between";
    }
    const bool this_epoch =
        byte.read.thread >= 0 && byte.read.block_epoch == now.block_epoch;
    const bool many = byte.read_by_many && SameWarp(byte.read, now) &&
                      byte.read.warp_epoch == now.warp_epoch;
    if (this_epoch &&
        (byte.read_by_warps || many || !Ordered(byte.read, now))) {
      return "writes what another thread reads, without a barrier between";
    }
    byte.write = now;
    byte.write_time = time_;
    byte.atomic = atomic;
  }
  return nullptr;
}

const char* SharedMemoryChecker::BeginCopy(const Moment& now, size_t offset,
                                           size_t n) {
  const char* error = Write(now, offset, n, /*atomic=*/false);
  if (error != nullptr) return error;
  for (size_t i = offset; i < offset + n; ++i) bytes_[i].copying = true;
  return nullptr;
}

void SharedMemoryChecker::EndCopy(const Moment& now, size_t offset, size_t n) {
  for (size_t i = offset; i < offset + n; ++i) {
    bytes_[i].copying = false;
    bytes_[i].write = now;
    bytes_[i].write_time = time_;
  }
}

const char* SharedMemoryChecker::ReadByTensorCores(const Moment& now,
                                                   size_t offset, size_t n) {
  const char* error = Read(now, offset, n);
  if (error != nullptr) return error;
  for (size_t i = offset; i < offset + n; ++i) {
    const auto writer = static_cast<size_t>(bytes_[i].write.thread);
    if (writer >= fence_times_.size() ||
        fence_times_[writer] <= bytes_[i].write_time) {
      return "lets tensor cores read what was written without a fence";
    }
  }
  return nullptr;
}

void SharedMemoryChecker::Fence(int thread) {
  const auto index = static_cast<size_t>(thread);
  if (index >= fence_times_.size()) fence_times_.resize(index + 1);
  fence_times_[index] = ++time_;
}

void GlobalMemoryChecker::Allow(const void* begin, size_t bytes,
                                bool writable) {
  const auto address = reinterpret_cast<uintptr_t>(begin);
  ranges_.push_back({address, address + bytes, writable});
}

bool GlobalMemoryChecker::Allowed(const void* begin, size_t bytes, bool write) {
  const auto address = reinterpret_cast<uintptr_t>(begin);
  for (size_t i = 0; i < ranges_.size(); ++i) {
    const size_t at = (last_ + i) % ranges_.size();
    const Range& range = ranges_[at];
    if (address < range.begin || bytes > range.end - range.begin ||
        address > range.end - bytes || (write && !range.writable)) {
      continue;
    }
    last_ = at;
    return true;
  }
  return false;
}

}  // namespace tern::simt
