#ifndef MODEL_MAPPED_FILE_H_
#define MODEL_MAPPED_FILE_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace tern {

// Which bytes a file holds, as far as the system tells without reading them: a
// file that is written to, or replaced, gets another identity. Times are those
// of the file system, in nanoseconds since 1970.
struct FileIdentity {
  uint64_t device = 0;
  uint64_t inode = 0;
  int64_t bytes = 0;
  int64_t modified_ns = 0;  // the bytes
  int64_t changed_ns = 0;   // anything about the file; cannot be set back

  friend bool operator==(const FileIdentity& a, const FileIdentity& b) {
    return a.device == b.device && a.inode == b.inode && a.bytes == b.bytes &&
           a.modified_ns == b.modified_ns && a.changed_ns == b.changed_ns;
  }
};

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

  // Of the file that is mapped, whatever its path names by now.
  absl::StatusOr<FileIdentity> Identity() const;

  // Copies bytes [offset, offset + out.size()) without touching the mapping,
  // so that a file cut short is an error. DATA_LOSS when the file ends before.
  absl::Status Read(int64_t offset, absl::Span<uint8_t> out) const;

  // Tells the operating system that the pages of `data`, a part of any mapped
  // file, are not needed for now, so that they stop counting as resident. Who
  // reads them again gets them from the page cache.
  static void Release(absl::Span<const uint8_t> data);

 private:
  MappedFile(int fd, absl::Span<const uint8_t> bytes)
      : fd_(fd), bytes_(bytes) {}

  const int fd_;
  const absl::Span<const uint8_t> bytes_;
};

}  // namespace tern

#endif  // MODEL_MAPPED_FILE_H_
