#ifndef MODEL_MAPPED_FILE_H_
#define MODEL_MAPPED_FILE_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace tern {

// A file, mapped to be read. The file must not change while it is mapped: one
// that is cut short takes the process down when the lost part is read.
//
// Immutable and thread-safe.
class MappedFile {
 public:
  // NOT_FOUND when the file is not there; INVALID_ARGUMENT, with the path and
  // the system's reason, when it is no regular file or cannot be read.
  static absl::StatusOr<std::unique_ptr<MappedFile>> Open(
      const std::string& path);

  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  ~MappedFile();

  absl::Span<const uint8_t> bytes() const { return bytes_; }

  // Tells the operating system that the pages of `data`, a part of any mapped
  // file, are not needed for now, so that they stop counting as resident. Who
  // reads them again gets them from the page cache.
  static void Release(absl::Span<const uint8_t> data);

 private:
  explicit MappedFile(absl::Span<const uint8_t> bytes) : bytes_(bytes) {}

  const absl::Span<const uint8_t> bytes_;
};

}  // namespace tern

#endif  // MODEL_MAPPED_FILE_H_
