#ifndef MODEL_GGUF_WRITER_H_
#define MODEL_GGUF_WRITER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace tern {

// Metadata and directory of a GGUF file that is to be written: version 3,
// little endian. Not thread-safe.
class GgufHeader {
 public:
  // Metadata, in the order of the calls; a second call for a key replaces its
  // value in its place. Keys are not empty.
  void SetUint32(absl::string_view key, uint32_t value);
  void SetFloat(absl::string_view key, float value);
  void SetBool(absl::string_view key, bool value);
  void SetString(absl::string_view key, absl::string_view value);
  void SetStringArray(absl::string_view key,
                      absl::Span<const std::string> values);
  void SetInt32Array(absl::string_view key, absl::Span<const int32_t> values);
  void SetFloatArray(absl::string_view key, absl::Span<const float> values);
  // A value as GgufReader::GetRaw() gives it.
  void SetRaw(absl::string_view key, uint32_t type,
              absl::Span<const uint8_t> bytes);

  // Appends a tensor. dims: as in GgufTensor, dims[0] the fastest.  bytes: what
  // its type and shape take; not compared. INVALID_ARGUMENT for a name that is
  // there already or has not 1 to 63 bytes.
  absl::Status AddTensor(absl::string_view name, absl::Span<const int64_t> dims,
                         uint32_t type, int64_t bytes);

  // Everything before the data, padded. Offsets of tensors are in their order.
  // Without tensors it is a whole file.
  std::string Serialize() const;

 private:
  friend class GgufWriter;
  struct Pair {
    std::string key;
    uint32_t type;
    std::string value;
  };
  struct Tensor {
    std::string name;
    std::vector<int64_t> dims;
    uint32_t type;
    int64_t bytes;
  };

  // general.alignment, 32 without one.
  int64_t Alignment() const;
  std::vector<Pair> pairs_;
  std::vector<Tensor> tensors_;
};

// Writes a GGUF file front to back, whatever its size: the header, then the
// tensors' bytes as they come. The file gets its name when it is whole; until
// then it is another one beside it, which goes away with this object.
//
//   ASSIGN_OR_RETURN(auto writer, GgufWriter::Create(path, header, false));
//   for (each tensor, in the order of the header) {
//     RETURN_IF_ERROR(writer->Append(a part of its bytes));
//     ...
//   }
//   RETURN_IF_ERROR(writer->Finish(/*sync=*/true));
//
// Not thread-safe.
class GgufWriter {
 public:
  // Begins the file. ALREADY_EXISTS when there is one and not `overwrite`,
  // RESOURCE_EXHAUSTED when the disk has not the room, else what the system
  // says.
  static absl::StatusOr<std::unique_ptr<GgufWriter>> Create(
      const std::string& path, const GgufHeader& header, bool overwrite);

  ~GgufWriter();
  GgufWriter(const GgufWriter&) = delete;
  GgufWriter& operator=(const GgufWriter&) = delete;

  // The next bytes of the tensor whose turn it is; padding comes by itself.
  // REQUIRES: they do not reach beyond that tensor.
  absl::Status Append(absl::Span<const uint8_t> bytes);

  // Gives the file its name. `sync` waits for the disk before, so that not even
  // a power failure leaves a file that is not whole; without it the disk has
  // time. REQUIRES: every tensor is complete.
  absl::Status Finish(bool sync);

  // Of the whole file, and of it so far.
  int64_t file_bytes() const { return file_bytes_; }
  int64_t written_bytes() const { return written_bytes_; }

 private:
  GgufWriter(std::string path, bool overwrite)
      : path_(std::move(path)), overwrite_(overwrite) {}

  absl::Status Write(const void* data, size_t size);
  absl::Status Error(absl::string_view what) const;
  // Goes on while the tensor whose turn it is has all its bytes.
  absl::Status Advance();

  const std::string path_;
  const bool overwrite_;
  std::string temporary_;  // empty when there is none
  int fd_ = -1;
  int64_t alignment_ = 0;
  int64_t file_bytes_ = 0;
  int64_t written_bytes_ = 0;
  std::vector<int64_t> tensor_bytes_;
  size_t tensor_ = 0;  // whose turn it is
  int64_t tensor_written_ = 0;
};

}  // namespace tern

#endif  // MODEL_GGUF_WRITER_H_
