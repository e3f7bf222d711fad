#include "worker/huge_buffer.h"

#include <linux/mempolicy.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

namespace tern {

HugeBuffer::HugeBuffer(HugeBuffer&& other) noexcept {
  *this = std::move(other);
}

HugeBuffer& HugeBuffer::operator=(HugeBuffer&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(mapping_, other.mapping_);
  std::swap(mapping_bytes_, other.mapping_bytes_);
  return *this;
}

HugeBuffer::~HugeBuffer() {
  if (mapping_ != nullptr) munmap(mapping_, mapping_bytes_);
}

absl::StatusOr<HugeBuffer> HugeBuffer::Allocate(size_t bytes,
                                                absl::string_view what) {
  HugeBuffer buffer;
  if (bytes == 0) return buffer;
  // Room to begin at a huge page's boundary.
  const size_t mapping_bytes = bytes + kAlignment;
  void* mapping = mmap(nullptr, mapping_bytes, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapping == MAP_FAILED) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the system refuses ", bytes, " bytes for ", what, ": ",
                     std::strerror(errno)));
  }
  buffer.mapping_ = mapping;
  buffer.mapping_bytes_ = mapping_bytes;
  const uintptr_t begin = reinterpret_cast<uintptr_t>(mapping);
  const uintptr_t aligned = (begin + kAlignment - 1) & ~(kAlignment - 1);
  buffer.data_ = static_cast<uint8_t*>(mapping) + (aligned - begin);
  buffer.size_ = bytes;
  // A hint: where huge pages are off, small ones do. Small buffers would waste
  // most of one.
  if (bytes >= kAlignment) madvise(buffer.data_, bytes, MADV_HUGEPAGE);
  return buffer;
}

absl::Status HugeBuffer::Interleave(absl::Span<const int> nodes) {
  constexpr int kBits = sizeof(unsigned long) * CHAR_BIT;
  std::vector<unsigned long> mask(1);
  for (const int node : nodes) {
    if (node < 0) return absl::InvalidArgumentError("a node below 0");
    if (static_cast<size_t>(node / kBits) >= mask.size()) {
      mask.resize(node / kBits + 1);
    }
    mask[node / kBits] |= 1ul << (node % kBits);
  }
  // The system takes one bit less than it is told.
  if (size_ == 0 || syscall(SYS_mbind, data_, size_, MPOL_INTERLEAVE,
                            mask.data(), mask.size() * kBits + 1, 0) == 0) {
    return absl::OkStatus();
  }
  return absl::ErrnoToStatus(errno, "placing memory");
}

}  // namespace tern
