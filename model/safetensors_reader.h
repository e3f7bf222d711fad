#ifndef MODEL_SAFETENSORS_READER_H_
#define MODEL_SAFETENSORS_READER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "model/mapped_file.h"

namespace tern {

// One tensor of a safetensors file, checked: its bytes lie inside the file, are
// as many as shape and type say, and overlap no other tensor's.
struct SafetensorsTensor {
  std::string name;
  std::string dtype;           // "BF16", "U8"
  std::vector<int64_t> shape;  // rows first; empty for a single value
  absl::Span<const uint8_t> data;
};

// A safetensors file, opened and checked: a length of 8 bytes, a JSON object of
// that length that lists the tensors, the tensors' data. Every length, shape
// and offset is checked before use, so that no file, however hostile, makes the
// reader crash, take memory out of proportion to it, or read outside of it.
//
// Immutable and thread-safe after construction. Spans live as long as it does.
class SafetensorsReader {
 public:
  // Maps and checks a file. NOT_FOUND when it is not there; INVALID_ARGUMENT
  // with a sentence that names place and limit when it is no such file;
  // DATA_LOSS when it is shorter than its own header says.
  static absl::StatusOr<std::unique_ptr<SafetensorsReader>> Open(
      const std::string& path);

  // The same for bytes in memory, which the caller keeps. For tests, fuzzing.
  static absl::StatusOr<std::unique_ptr<SafetensorsReader>> FromBytes(
      absl::Span<const uint8_t> bytes);

  // In the order of the header.
  absl::Span<const SafetensorsTensor> tensors() const { return tensors_; }

  // What the header's "__metadata__" says, in its order.
  const std::vector<std::pair<std::string, std::string>>& metadata() const {
    return metadata_;
  }

  // Length and JSON: everything before the data.
  absl::Span<const uint8_t> header() const { return header_; }
  // Null for FromBytes().
  const std::shared_ptr<const MappedFile>& file() const { return file_; }
  int64_t file_bytes() const { return static_cast<int64_t>(bytes_.size()); }

  // Tells the operating system that the pages of `data` are not needed for now.
  // No-op for FromBytes().
  void Release(absl::Span<const uint8_t> data) const;

 private:
  SafetensorsReader() = default;
  absl::Status Parse();

  std::shared_ptr<const MappedFile> file_;  // null after FromBytes()
  absl::Span<const uint8_t> bytes_;
  absl::Span<const uint8_t> header_;
  std::vector<SafetensorsTensor> tensors_;
  std::vector<std::pair<std::string, std::string>> metadata_;
};

}  // namespace tern

#endif  // MODEL_SAFETENSORS_READER_H_
