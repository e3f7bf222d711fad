#ifndef TESTS_TESTING_GGUF_BUILDER_H_
#define TESTS_TESTING_GGUF_BUILDER_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/optional.h"
#include "absl/types/span.h"
#include "model/gguf_types.h"

namespace tern {
namespace testing {

using Bytes = std::vector<uint8_t>;

// Writes GGUF files for tests: right ones, and wrong ones in every way that a
// file can be wrong. Nothing is checked.
//
//   Bytes file = GgufBuilder()
//                    .SetString("general.architecture", "bitnet-b1.58")
//                    .AddTensor("output_norm.weight", {64}, kF32, bytes)
//                    .Build();
class GgufBuilder {
 public:
  // Element types of tensors.
  static constexpr uint32_t kF32 = 0;
  static constexpr uint32_t kF16 = 1;
  static constexpr uint32_t kBF16 = 30;
  static constexpr uint32_t kTQ1_0 = 34;
  static constexpr uint32_t kTQ2_0 = 35;
  static constexpr uint32_t kI2S = 36;

  struct Tensor {
    std::string name;
    std::vector<uint64_t> dims;  // dims[0] is the fastest
    uint32_t type;
    Bytes data;
    // Offset to write in place of the true one.
    absl::optional<uint64_t> offset;
    // Number of dimensions to write in place of dims.size().
    absl::optional<uint32_t> n_dims;
  };

  // Metadata. A second Set of the same key replaces the value in its place.
  GgufBuilder& SetUint8(absl::string_view key, uint8_t value);
  GgufBuilder& SetInt8(absl::string_view key, int8_t value);
  GgufBuilder& SetUint16(absl::string_view key, uint16_t value);
  GgufBuilder& SetInt16(absl::string_view key, int16_t value);
  GgufBuilder& SetUint32(absl::string_view key, uint32_t value);
  GgufBuilder& SetInt32(absl::string_view key, int32_t value);
  GgufBuilder& SetUint64(absl::string_view key, uint64_t value);
  GgufBuilder& SetInt64(absl::string_view key, int64_t value);
  GgufBuilder& SetFloat(absl::string_view key, float value);
  GgufBuilder& SetDouble(absl::string_view key, double value);
  GgufBuilder& SetBool(absl::string_view key, bool value);
  GgufBuilder& SetString(absl::string_view key, absl::string_view value);
  GgufBuilder& SetStringArray(absl::string_view key,
                              absl::Span<const std::string> values);
  GgufBuilder& SetInt32Array(absl::string_view key,
                             absl::Span<const int32_t> values);
  GgufBuilder& SetUint32Array(absl::string_view key,
                              absl::Span<const uint32_t> values);
  GgufBuilder& SetFloatArray(absl::string_view key,
                             absl::Span<const float> values);
  // A value of any type id, as the bytes behind that id.
  GgufBuilder& SetRaw(absl::string_view key, uint32_t type, Bytes value);
  // Appends even when the key is there already.
  GgufBuilder& AddRaw(absl::string_view key, uint32_t type, Bytes value);
  GgufBuilder& Remove(absl::string_view key);

  GgufBuilder& AddTensor(absl::string_view name, std::vector<uint64_t> dims,
                         uint32_t type, Bytes data);
  GgufBuilder& RemoveTensor(absl::string_view name);
  // The tensor of that name, to be changed. It must exist; the pointer holds
  // until the next call that adds or removes a tensor.
  Tensor* MutableTensor(absl::string_view name);
  const std::vector<Tensor>& tensors() const { return tensors_; }

  // Header fields, in place of the true ones.
  GgufBuilder& set_magic(absl::string_view magic);
  GgufBuilder& set_version(uint32_t version);
  GgufBuilder& set_tensor_count(uint64_t count);
  GgufBuilder& set_pair_count(uint64_t count);
  // Where tensors begin; not written as general.alignment. Default 32.
  GgufBuilder& set_alignment(uint64_t alignment);

  Bytes Build() const;

 private:
  struct Pair {
    std::string key;
    uint32_t type;
    Bytes value;
  };

  std::string magic_ = "GGUF";
  uint32_t version_ = 3;
  uint64_t alignment_ = 32;
  absl::optional<uint64_t> tensor_count_;
  absl::optional<uint64_t> pair_count_;
  std::vector<Pair> pairs_;
  std::vector<Tensor> tensors_;
};

// Appends the little-endian bytes of a number, or a length and the text.
void AppendUint32(uint32_t value, Bytes* out);
void AppendUint64(uint64_t value, Bytes* out);
void AppendString(absl::string_view text, Bytes* out);

// Tensor data. `codes` are weights + 1, row-major, each 0 to 3; their number a
// multiple of 128.
Bytes PackI2S(absl::Span<const uint8_t> codes, float scale);
Bytes PackF32(absl::Span<const float> values);
// Rounds half to even; for magnitudes that float16 can hold.
Bytes PackF16(absl::Span<const float> values);

}  // namespace testing
}  // namespace tern

#endif  // TESTS_TESTING_GGUF_BUILDER_H_
