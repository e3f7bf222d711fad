#ifndef WORKER_HUGE_BUFFER_H_
#define WORKER_HUGE_BUFFER_H_

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace tern {

// A run of zeroed bytes of its own mapping, in huge pages where the system
// grants them: weights and KV pool, which are read from end to end, cost far
// fewer TLB misses in them. Pages are taken when first written. Movable.
class HugeBuffer {
 public:
  // Alignment of data().
  static constexpr size_t kAlignment = 2 << 20;

  HugeBuffer() = default;
  HugeBuffer(HugeBuffer&& other) noexcept;
  HugeBuffer& operator=(HugeBuffer&& other) noexcept;
  ~HugeBuffer();

  // RESOURCE_EXHAUSTED when the system refuses, naming `what` and the size.
  static absl::StatusOr<HugeBuffer> Allocate(size_t bytes,
                                             absl::string_view what);

  // Lets the pages, none of which has been written yet, take turns in the
  // memory of these nodes. PERMISSION_DENIED where the system does not let this
  // process choose (in containers without CAP_SYS_NICE), INVALID_ARGUMENT for
  // nodes that it does not have; pages then lie near who writes them first.
  absl::Status Interleave(absl::Span<const int> nodes);

  uint8_t* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  uint8_t* data_ = nullptr;
  size_t size_ = 0;
  void* mapping_ = nullptr;
  size_t mapping_bytes_ = 0;
};

}  // namespace tern

#endif  // WORKER_HUGE_BUFFER_H_
