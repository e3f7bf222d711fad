#include "worker/huge_buffer.h"

#include <sys/mman.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/status/status.h"
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

}  // namespace tern
