#ifndef MODEL_GGUF_READER_H_
#define MODEL_GGUF_READER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "model/mapped_file.h"

namespace tern {

// Element types of GGUF tensors that Tern knows by name (docs/formats.md).
// Files may hold others: they are listed, and refused when their data is
// wanted.
enum class GgufType : uint32_t {
  kF32 = 0,
  kF16 = 1,
  kQ8_0 = 8,
  kQ4K = 12,
  kQ6K = 14,
  kBF16 = 30,
  kTQ1_0 = 34,
  kTQ2_0 = 35,
  kI2S = 36,
};

// One tensor of the directory, checked: its bytes lie inside the file and
// overlap no other tensor's.
struct GgufTensor {
  std::string name;
  std::vector<int64_t> dims;       // ggml order: dims[0] is the fastest
  uint32_t type;                   // GgufType, or another id
  absl::Span<const uint8_t> data;  // into the mapped file

  int64_t columns() const { return dims[0]; }
  int64_t rows() const;  // product of dims[1..]
};

// A GGUF version 2 or 3 file, or a set of files that one was split into, opened
// and checked. Metadata are those of the first part, tensors those of all.
//
// Opening reads headers only: metadata and directory. Every length, count,
// offset and type in it is checked before use, so that no file, however
// hostile, makes the reader crash, allocate beyond its size, or read outside
// it. Strings and arrays of metadata stay in the mapped file.
//
// Immutable and thread-safe after construction. Spans and views that it gives
// out live as long as it does.
class GgufReader {
 public:
  // Maps and checks a file. Of a split set it is the first part,
  // "...-00001-of-00003.gguf"; the others lie beside it.
  //
  // NOT_FOUND when a file is not there; INVALID_ARGUMENT
  // with a sentence that names place and limit when it is no GGUF file that
  // Tern reads; DATA_LOSS when it is shorter than its own directory says.
  static absl::StatusOr<std::unique_ptr<GgufReader>> Open(
      const std::string& path);

  // The same for bytes in memory, which the caller keeps. For tests, fuzzing.
  static absl::StatusOr<std::unique_ptr<GgufReader>> FromBytes(
      absl::Span<const uint8_t> bytes);

  ~GgufReader();

  // Metadata by key. NOT_FOUND when the key is missing, INVALID_ARGUMENT when
  // its value has another type (or, for numbers, does not fit).
  absl::StatusOr<absl::string_view> GetString(absl::string_view key) const;
  // Any integer type, signed or not.
  absl::StatusOr<int64_t> GetInt(absl::string_view key) const;
  // f32 or f64; finite.
  absl::StatusOr<double> GetFloat(absl::string_view key) const;
  absl::StatusOr<bool> GetBool(absl::string_view key) const;
  absl::StatusOr<std::vector<absl::string_view>> GetStringArray(
      absl::string_view key) const;
  // i32 or u32.
  absl::StatusOr<std::vector<int32_t>> GetIntArray(absl::string_view key) const;
  absl::StatusOr<std::vector<float>> GetFloatArray(absl::string_view key) const;
  bool HasKey(absl::string_view key) const;

  // A value as it stands in the file: the type, and all bytes behind it (those
  // of an array begin with the elements' type and number). For copies.
  struct RawValue {
    uint32_t type;  // GgufValueType
    absl::Span<const uint8_t> bytes;
  };
  absl::StatusOr<RawValue> GetRaw(absl::string_view key) const;

  // For people who look into a file: keys in the order of the file, and a
  // value as text (arrays by length and type alone; empty for no such key).
  std::vector<std::string> keys() const;
  std::string ValueText(absl::string_view key) const;

  // In the order of the directory, part after part.
  absl::Span<const GgufTensor> tensors() const { return tensors_; }
  // Null when there is no such tensor.
  const GgufTensor* FindTensor(absl::string_view name) const;

  // Identifies header and size: CRC-32C of everything before the tensor data in
  // the upper half, CRC-32C of the file size (8 bytes, little-endian) in the
  // lower half. Two files that differ in weights alone have the same. For a
  // split set the upper half is the CRC-32C of the parts' upper halves (4 bytes
  // each, little-endian), the lower that of their sizes' sum.
  uint64_t fingerprint() const { return fingerprint_; }
  // The mapped file, or those of a split set in order. Empty for FromBytes().
  std::vector<std::shared_ptr<const MappedFile>> files() const;
  // Of all parts together.
  int64_t file_bytes() const { return file_bytes_; }

  // Tells the operating system that the pages of `data` are not needed for now,
  // so that they stop counting as resident. No-op for FromBytes().
  void Release(absl::Span<const uint8_t> data) const;

 private:
  struct Value {  // where a metadata value lies in the file
    uint32_t type;
    uint32_t element_type;  // of arrays
    uint64_t count;         // of arrays
    size_t offset;          // of the value (of the first element for arrays)
  };
  class Parser;

  GgufReader();
  static absl::StatusOr<std::unique_ptr<GgufReader>> OpenPart(
      const std::string& path);
  // Parts that the file says there are; 1 for a file that is not split.
  absl::StatusOr<int64_t> PartCount() const;
  absl::Status AddParts(const std::string& path, int64_t count);
  absl::StatusOr<const Value*> Find(absl::string_view key) const;

  absl::Span<const uint8_t> bytes_;         // of the first part
  std::shared_ptr<const MappedFile> file_;  // null after FromBytes()
  std::vector<std::shared_ptr<const MappedFile>> parts_;  // the other ones
  int64_t file_bytes_ = 0;
  absl::flat_hash_map<std::string, Value> values_;
  std::vector<GgufTensor> tensors_;
  absl::flat_hash_map<std::string, int> tensor_index_;
  uint64_t fingerprint_ = 0;
};

}  // namespace tern

#endif  // MODEL_GGUF_READER_H_
