#include "tests/parity/trace_file.h"

#include <cstring>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "util/logging.h"

namespace tern {
namespace {

template <typename T>
constexpr char TypeCode();
template <>
constexpr char TypeCode<float>() {
  return 'f';
}
template <>
constexpr char TypeCode<uint16_t>() {
  return 'h';
}
template <>
constexpr char TypeCode<int8_t>() {
  return 'b';
}
template <>
constexpr char TypeCode<int32_t>() {
  return 'i';
}

int ElementBytes(char type) {
  switch (type) {
    case 'f':
    case 'i':
      return 4;
    case 'h':
      return 2;
    default:
      return 1;
  }
}

}  // namespace

absl::StatusOr<TraceFile> TraceFile::Read(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) return absl::NotFoundError(absl::StrCat("cannot open ", path));
  auto u32 = [&in] {
    uint32_t value = 0;
    in.read(reinterpret_cast<char*>(&value), 4);
    return value;
  };
  TraceFile file;
  const uint32_t count = u32();
  for (uint32_t i = 0; i < count && in; ++i) {
    std::string name(u32(), '\0');
    in.read(&name[0], name.size());
    Array array;
    in.read(&array.type, 1);
    size_t n = 1;
    array.shape.resize(u32());
    for (int& dim : array.shape) n *= dim = static_cast<int>(u32());
    array.bytes.resize(n * ElementBytes(array.type));
    in.read(&array.bytes[0], array.bytes.size());
    file.arrays_[name] = std::move(array);
  }
  if (!in) return absl::DataLossError(absl::StrCat(path, " is cut short"));
  return file;
}

const TraceFile::Array& TraceFile::Find(const std::string& name) const {
  auto it = arrays_.find(name);
  CHECK(it != arrays_.end()) << "no array " << name;
  return it->second;
}

const std::vector<int>& TraceFile::Shape(const std::string& name) const {
  return Find(name).shape;
}

template <typename T>
std::vector<T> TraceFile::Get(const std::string& name) const {
  const Array& array = Find(name);
  CHECK(array.type == TypeCode<T>()) << name << " has type " << array.type;
  std::vector<T> out(array.bytes.size() / sizeof(T));
  std::memcpy(out.data(), array.bytes.data(), array.bytes.size());
  return out;
}

template std::vector<float> TraceFile::Get(const std::string&) const;
template std::vector<uint16_t> TraceFile::Get(const std::string&) const;
template std::vector<int8_t> TraceFile::Get(const std::string&) const;
template std::vector<int32_t> TraceFile::Get(const std::string&) const;

}  // namespace tern
