#ifndef TESTS_TESTING_SAFETENSORS_BUILDER_H_
#define TESTS_TESTING_SAFETENSORS_BUILDER_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "tests/testing/gguf_builder.h"

namespace tern {
namespace testing {

// Writes safetensors files for tests. Nothing is checked.
class SafetensorsBuilder {
 public:
  struct Tensor {
    std::string name;
    std::string dtype;
    std::vector<int64_t> shape;
    Bytes data;
  };

  SafetensorsBuilder& AddTensor(absl::string_view name, absl::string_view dtype,
                                std::vector<int64_t> shape, Bytes data);
  SafetensorsBuilder& RemoveTensor(absl::string_view name);
  // The tensor of that name, to be changed. It must exist; the pointer holds
  // until the next call that adds or removes a tensor.
  Tensor* MutableTensor(absl::string_view name);
  const std::vector<Tensor>& tensors() const { return tensors_; }

  Bytes Build() const;

 private:
  std::vector<Tensor> tensors_;
};

// A file of any header and data.
Bytes SafetensorsBytes(absl::string_view header,
                       absl::Span<const uint8_t> data);

// Packs codes (weight + 1, row-major [n_out, n_in], n_out a multiple of 4) as
// U8 [n_out / 4, n_in]: bits 1:0 of a byte have the first quarter of the rows.
Bytes PackRows(absl::Span<const uint8_t> codes, int n_out, int n_in);

// Rounds half to even.
Bytes PackBF16(absl::Span<const float> values);

}  // namespace testing
}  // namespace tern

#endif  // TESTS_TESTING_SAFETENSORS_BUILDER_H_
