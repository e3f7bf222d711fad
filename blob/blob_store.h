#ifndef BLOB_BLOB_STORE_H_
#define BLOB_BLOB_STORE_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "model/manifest.h"

namespace tern {

// The files of a model, whole or in part, by what they hold. Thread-safe.
class BlobContent {
 public:
  virtual ~BlobContent() = default;

  virtual const Manifest& manifest() const = 0;
  virtual const std::string& manifest_text() const = 0;

  // Copies bytes [offset, offset + out.size()) of a file; may wait for a disk.
  // NOT_FOUND when they are not here, DATA_LOSS when they cannot be read.
  // REQUIRES: they lie within the file of the manifest.
  virtual absl::Status Read(int file, int64_t offset,
                            absl::Span<uint8_t> out) const = 0;
};

// What a process holds. Thread-safe.
class BlobStore {
 public:
  virtual ~BlobStore() = default;

  // Null when nothing of that content is here. content_id: from anyone.
  virtual std::shared_ptr<const BlobContent> Find(
      absl::string_view content_id) = 0;
};

}  // namespace tern

#endif  // BLOB_BLOB_STORE_H_
