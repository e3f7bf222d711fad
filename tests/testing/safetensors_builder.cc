#include "tests/testing/safetensors_builder.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "util/logging.h"

namespace tern {
namespace testing {

SafetensorsBuilder& SafetensorsBuilder::AddTensor(absl::string_view name,
                                                  absl::string_view dtype,
                                                  std::vector<int64_t> shape,
                                                  Bytes data) {
  tensors_.push_back({std::string(name), std::string(dtype), std::move(shape),
                      std::move(data)});
  return *this;
}

SafetensorsBuilder& SafetensorsBuilder::RemoveTensor(absl::string_view name) {
  tensors_.erase(
      std::remove_if(tensors_.begin(), tensors_.end(),
                     [&](const Tensor& t) { return t.name == name; }),
      tensors_.end());
  return *this;
}

SafetensorsBuilder::Tensor* SafetensorsBuilder::MutableTensor(
    absl::string_view name) {
  const auto it = std::find_if(tensors_.begin(), tensors_.end(),
                               [&](const Tensor& t) { return t.name == name; });
  CHECK(it != tensors_.end()) << std::string(name);
  return &*it;
}

Bytes SafetensorsBuilder::Build() const {
  std::string header = R"({"__metadata__":{"format":"pt"})";
  Bytes data;
  for (const Tensor& tensor : tensors_) {
    const size_t begin = data.size();
    data.insert(data.end(), tensor.data.begin(), tensor.data.end());
    absl::StrAppend(&header, ",\"", tensor.name, "\":{\"dtype\":\"",
                    tensor.dtype, "\",\"shape\":[",
                    absl::StrJoin(tensor.shape, ","), "],\"data_offsets\":[",
                    begin, ",", data.size(), "]}");
  }
  absl::StrAppend(&header, "}");
  while (header.size() % 8 != 0) header.push_back(' ');
  return SafetensorsBytes(header, data);
}

Bytes SafetensorsBytes(absl::string_view header,
                       absl::Span<const uint8_t> data) {
  Bytes out;
  AppendUint64(header.size(), &out);
  out.insert(out.end(), header.begin(), header.end());
  out.insert(out.end(), data.begin(), data.end());
  return out;
}

Bytes PackRows(absl::Span<const uint8_t> codes, int n_out, int n_in) {
  CHECK(n_out % 4 == 0);
  const size_t quarter = static_cast<size_t>(n_out) / 4 * n_in;
  Bytes out(quarter);
  for (size_t i = 0; i < quarter; ++i) {
    out[i] = codes[i] | codes[i + quarter] << 2 | codes[i + 2 * quarter] << 4 |
             codes[i + 3 * quarter] << 6;
  }
  return out;
}

Bytes PackBF16(absl::Span<const float> values) {
  Bytes out;
  out.reserve(values.size() * 2);
  for (const float value : values) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof(bits));
    bits += 0x7fff + (bits >> 16 & 1);
    out.push_back(bits >> 16 & 0xff);
    out.push_back(bits >> 24);
  }
  return out;
}

}  // namespace testing
}  // namespace tern
