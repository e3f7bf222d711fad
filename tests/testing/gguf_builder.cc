#include "tests/testing/gguf_builder.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "util/logging.h"

namespace tern {
namespace testing {
namespace {

template <typename T>
void AppendRaw(T value, Bytes* out) {
  uint8_t bytes[sizeof(T)];
  std::memcpy(bytes, &value, sizeof(T));
  out->insert(out->end(), bytes, bytes + sizeof(T));
}

template <typename T>
Bytes RawBytes(T value) {
  Bytes out;
  AppendRaw(value, &out);
  return out;
}

template <typename T>
Bytes RawArray(uint32_t type, absl::Span<const T> values) {
  Bytes out;
  AppendUint32(type, &out);
  AppendUint64(values.size(), &out);
  for (T value : values) AppendRaw(value, &out);
  return out;
}

uint16_t ToHalf(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  const uint16_t sign = (bits >> 16) & 0x8000;
  const float magnitude = std::fabs(value);
  CHECK(magnitude <= 65504.0f);
  // In units of the last place of the result, nearbyint does the rounding.
  const int exponent = std::max(std::ilogb(magnitude), -14);
  if (magnitude == 0) return sign;
  const int units =
      static_cast<int>(std::nearbyint(std::ldexp(magnitude, 10 - exponent)));
  // A carry out of the mantissa moves on to the exponent by itself; a missing
  // leading bit (subnormal) takes one from it.
  return sign | static_cast<uint16_t>(((exponent + 14) << 10) + units);
}

}  // namespace

void AppendUint32(uint32_t value, Bytes* out) { AppendRaw(value, out); }
void AppendUint64(uint64_t value, Bytes* out) { AppendRaw(value, out); }
void AppendString(absl::string_view text, Bytes* out) {
  AppendUint64(text.size(), out);
  out->insert(out->end(), text.begin(), text.end());
}

GgufBuilder& GgufBuilder::SetUint8(absl::string_view key, uint8_t value) {
  return SetRaw(key, kGgufUint8, RawBytes(value));
}
GgufBuilder& GgufBuilder::SetInt8(absl::string_view key, int8_t value) {
  return SetRaw(key, kGgufInt8, RawBytes(value));
}
GgufBuilder& GgufBuilder::SetUint16(absl::string_view key, uint16_t value) {
  return SetRaw(key, kGgufUint16, RawBytes(value));
}
GgufBuilder& GgufBuilder::SetInt16(absl::string_view key, int16_t value) {
  return SetRaw(key, kGgufInt16, RawBytes(value));
}
GgufBuilder& GgufBuilder::SetUint32(absl::string_view key, uint32_t value) {
  return SetRaw(key, kGgufUint32, RawBytes(value));
}
GgufBuilder& GgufBuilder::SetInt32(absl::string_view key, int32_t value) {
  return SetRaw(key, kGgufInt32, RawBytes(value));
}
GgufBuilder& GgufBuilder::SetUint64(absl::string_view key, uint64_t value) {
  return SetRaw(key, kGgufUint64, RawBytes(value));
}
GgufBuilder& GgufBuilder::SetInt64(absl::string_view key, int64_t value) {
  return SetRaw(key, kGgufInt64, RawBytes(value));
}
GgufBuilder& GgufBuilder::SetFloat(absl::string_view key, float value) {
  return SetRaw(key, kGgufFloat32, RawBytes(value));
}
GgufBuilder& GgufBuilder::SetDouble(absl::string_view key, double value) {
  return SetRaw(key, kGgufFloat64, RawBytes(value));
}
GgufBuilder& GgufBuilder::SetBool(absl::string_view key, bool value) {
  return SetRaw(key, kGgufBool, {static_cast<uint8_t>(value)});
}
GgufBuilder& GgufBuilder::SetString(absl::string_view key,
                                    absl::string_view value) {
  Bytes out;
  AppendString(value, &out);
  return SetRaw(key, kGgufString, std::move(out));
}
GgufBuilder& GgufBuilder::SetStringArray(absl::string_view key,
                                         absl::Span<const std::string> values) {
  Bytes out;
  AppendUint32(kGgufString, &out);
  AppendUint64(values.size(), &out);
  for (const std::string& value : values) AppendString(value, &out);
  return SetRaw(key, kGgufArray, std::move(out));
}
GgufBuilder& GgufBuilder::SetInt32Array(absl::string_view key,
                                        absl::Span<const int32_t> values) {
  return SetRaw(key, kGgufArray, RawArray(kGgufInt32, values));
}
GgufBuilder& GgufBuilder::SetUint32Array(absl::string_view key,
                                         absl::Span<const uint32_t> values) {
  return SetRaw(key, kGgufArray, RawArray(kGgufUint32, values));
}
GgufBuilder& GgufBuilder::SetFloatArray(absl::string_view key,
                                        absl::Span<const float> values) {
  return SetRaw(key, kGgufArray, RawArray(kGgufFloat32, values));
}

GgufBuilder& GgufBuilder::SetRaw(absl::string_view key, uint32_t type,
                                 Bytes value) {
  for (Pair& pair : pairs_) {
    if (pair.key != key) continue;
    pair.type = type;
    pair.value = std::move(value);
    return *this;
  }
  return AddRaw(key, type, std::move(value));
}

GgufBuilder& GgufBuilder::AddRaw(absl::string_view key, uint32_t type,
                                 Bytes value) {
  pairs_.push_back({std::string(key), type, std::move(value)});
  return *this;
}

GgufBuilder& GgufBuilder::Remove(absl::string_view key) {
  pairs_.erase(std::remove_if(pairs_.begin(), pairs_.end(),
                              [key](const Pair& p) { return p.key == key; }),
               pairs_.end());
  return *this;
}

GgufBuilder& GgufBuilder::AddTensor(absl::string_view name,
                                    std::vector<uint64_t> dims, uint32_t type,
                                    Bytes data) {
  tensors_.push_back({std::string(name), std::move(dims), type, std::move(data),
                      absl::nullopt, absl::nullopt});
  return *this;
}

GgufBuilder& GgufBuilder::RemoveTensor(absl::string_view name) {
  tensors_.erase(
      std::remove_if(tensors_.begin(), tensors_.end(),
                     [name](const Tensor& t) { return t.name == name; }),
      tensors_.end());
  return *this;
}

GgufBuilder::Tensor* GgufBuilder::MutableTensor(absl::string_view name) {
  for (Tensor& tensor : tensors_) {
    if (tensor.name == name) return &tensor;
  }
  CHECK(false) << "no tensor " << std::string(name);
  return nullptr;
}

GgufBuilder& GgufBuilder::set_magic(absl::string_view magic) {
  magic_ = std::string(magic);
  return *this;
}
GgufBuilder& GgufBuilder::set_version(uint32_t version) {
  version_ = version;
  return *this;
}
GgufBuilder& GgufBuilder::set_tensor_count(uint64_t count) {
  tensor_count_ = count;
  return *this;
}
GgufBuilder& GgufBuilder::set_pair_count(uint64_t count) {
  pair_count_ = count;
  return *this;
}
GgufBuilder& GgufBuilder::set_alignment(uint64_t alignment) {
  alignment_ = alignment;
  return *this;
}

Bytes GgufBuilder::Build() const {
  const auto round_up = [this](uint64_t n) {
    return (n + alignment_ - 1) / alignment_ * alignment_;
  };
  Bytes out(magic_.begin(), magic_.end());
  AppendUint32(version_, &out);
  AppendUint64(tensor_count_.value_or(tensors_.size()), &out);
  AppendUint64(pair_count_.value_or(pairs_.size()), &out);
  for (const Pair& pair : pairs_) {
    AppendString(pair.key, &out);
    AppendUint32(pair.type, &out);
    out.insert(out.end(), pair.value.begin(), pair.value.end());
  }
  uint64_t offset = 0;
  for (const Tensor& tensor : tensors_) {
    AppendString(tensor.name, &out);
    AppendUint32(tensor.n_dims.value_or(tensor.dims.size()), &out);
    for (uint64_t dim : tensor.dims) AppendUint64(dim, &out);
    AppendUint32(tensor.type, &out);
    AppendUint64(tensor.offset.value_or(offset), &out);
    offset += round_up(tensor.data.size());
  }
  for (const Tensor& tensor : tensors_) {
    out.resize(round_up(out.size()));
    out.insert(out.end(), tensor.data.begin(), tensor.data.end());
  }
  return out;
}

Bytes PackI2S(absl::Span<const uint8_t> codes, float scale) {
  CHECK(codes.size() % 128 == 0);
  Bytes out;
  out.reserve(codes.size() / 4 + 32);
  for (size_t block = 0; block < codes.size(); block += 128) {
    for (size_t p = block; p < block + 32; ++p) {
      out.push_back(codes[p] << 6 | codes[p + 32] << 4 | codes[p + 64] << 2 |
                    codes[p + 96]);
    }
  }
  AppendRaw(scale, &out);
  out.resize(out.size() + 28);
  return out;
}

Bytes PackF32(absl::Span<const float> values) {
  Bytes out;
  out.reserve(values.size() * 4);
  for (float value : values) AppendRaw(value, &out);
  return out;
}

Bytes PackF16(absl::Span<const float> values) {
  Bytes out;
  out.reserve(values.size() * 2);
  for (float value : values) AppendRaw(ToHalf(value), &out);
  return out;
}

}  // namespace testing
}  // namespace tern
