#include "model/safetensors_reader.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"
#include "util/status_macros.h"

namespace tern {
namespace {

using Json = nlohmann::json;

constexpr size_t kLengthBytes = 8;
constexpr uint64_t kHeaderBytesMax = 100'000'000;  // the format's own limit
constexpr size_t kTensorsMax = 65536;
constexpr size_t kNameBytesMax = 255;
constexpr size_t kDimensionsMax = 8;
constexpr uint64_t kElementsMax = uint64_t{1} << 48;

// Names come from the file: printable and short in messages.
std::string Quoted(absl::string_view name) {
  constexpr size_t kShown = 80;
  return absl::StrCat("'", absl::CHexEscape(name.substr(0, kShown)),
                      name.size() > kShown ? "...'" : "'");
}

// Bytes of an element; 0 when there is no such type.
uint64_t ElementBytes(absl::string_view dtype) {
  static constexpr struct {
    const char* name;
    int bytes;
  } kTypes[] = {{"BOOL", 1}, {"U8", 1},      {"I8", 1},     {"I16", 2},
                {"U16", 2},  {"F16", 2},     {"BF16", 2},   {"I32", 4},
                {"U32", 4},  {"F32", 4},     {"I64", 8},    {"U64", 8},
                {"F64", 8},  {"F8_E4M3", 1}, {"F8_E5M2", 1}};
  for (const auto& type : kTypes) {
    if (dtype == type.name) return type.bytes;
  }
  return 0;
}

// What the header says of one tensor, before it is compared with the file.
struct Entry {
  std::string name;
  std::string dtype;
  std::vector<uint64_t> shape;
  std::vector<uint64_t> offsets;
  bool has_dtype = false;
  bool has_shape = false;
  bool has_offsets = false;
};

// Takes in the header as it is parsed, without a tree of it in between: what
// does not belong there ends the parser at once, so that neither depth nor
// number of anything costs memory.
class HeaderHandler : public nlohmann::json_sax<Json> {
 public:
  bool null() override { return Unexpected("null"); }
  bool boolean(bool) override { return Unexpected("a truth value"); }
  bool number_integer(number_integer_t) override {
    return Unexpected("a negative number");
  }
  bool number_float(number_float_t, const string_t&) override {
    return Unexpected("a number with a fraction");
  }
  bool binary(binary_t&) override { return Unexpected("binary data"); }

  bool number_unsigned(number_unsigned_t value) override {
    if (list_ == nullptr) return Unexpected("a number");
    if (list_->size() == kDimensionsMax) {
      return Fail(absl::StrCat("tensor ", Quoted(entries_.back().name),
                               " has more than ", kDimensionsMax,
                               " dimensions or offsets"));
    }
    list_->push_back(value);
    return true;
  }

  bool string(string_t& value) override {
    if (depth_ == 2 && in_metadata_) {
      metadata_.push_back({field_, value});
      return true;
    }
    if (depth_ != 2 || field_ != "dtype" || list_ != nullptr) {
      return Unexpected("a string");
    }
    entries_.back().dtype = value;
    return Once(&entries_.back().has_dtype);
  }

  bool start_object(size_t) override {
    if (depth_ == 2 || list_ != nullptr || (depth_ == 1 && field_.empty())) {
      return Unexpected("an object");
    }
    ++depth_;
    if (depth_ != 2) return true;
    in_metadata_ = field_ == "__metadata__";
    if (!in_metadata_) {
      if (entries_.size() == kTensorsMax) {
        return Fail(absl::StrCat("it lists more than ", kTensorsMax,
                                 " tensors, which is the most"));
      }
      entries_.emplace_back();
      entries_.back().name = field_;
    }
    field_.clear();
    return true;
  }

  bool end_object() override {
    --depth_;
    field_.clear();
    if (depth_ != 1 || in_metadata_) return true;
    const Entry& entry = entries_.back();
    if (entry.has_dtype && entry.has_shape && entry.has_offsets) return true;
    return Fail(absl::StrCat("tensor ", Quoted(entry.name),
                             " lacks dtype, shape or data_offsets"));
  }

  bool key(string_t& name) override {
    field_ = name;
    if (depth_ != 1) return true;
    if (name.empty() || name.size() > kNameBytesMax) {
      return Fail(absl::StrCat("a tensor's name has ", name.size(),
                               " bytes; allowed are 1 to ", kNameBytesMax));
    }
    if (names_.insert(name).second) return true;
    return Fail(absl::StrCat("tensor ", Quoted(name), " occurs twice"));
  }

  bool start_array(size_t) override {
    if (depth_ != 2 || in_metadata_ || list_ != nullptr) {
      return Unexpected("a list");
    }
    Entry& entry = entries_.back();
    if (field_ == "shape") {
      list_ = &entry.shape;
      return Once(&entry.has_shape);
    }
    if (field_ == "data_offsets") {
      list_ = &entry.offsets;
      return Once(&entry.has_offsets);
    }
    return Unexpected("a list");
  }

  bool end_array() override {
    list_ = nullptr;
    return true;
  }

  bool parse_error(size_t position, const std::string&,
                   const Json::exception&) override {
    return Fail(absl::StrCat("it is no JSON at byte ", position));
  }

  const std::string& problem() const { return problem_; }
  std::vector<Entry>& entries() { return entries_; }
  std::vector<std::pair<std::string, std::string>>& metadata() {
    return metadata_;
  }

 private:
  bool Fail(std::string problem) {
    problem_ = std::move(problem);
    return false;
  }
  bool Unexpected(absl::string_view what) {
    return Fail(absl::StrCat("it holds ", what, " at ", Quoted(field_),
                             ", where none belongs"));
  }
  bool Once(bool* seen) {
    if (*seen) {
      return Fail(absl::StrCat("tensor ", Quoted(entries_.back().name), " has ",
                               Quoted(field_), " twice"));
    }
    *seen = true;
    return true;
  }

  int depth_ = 0;  // of objects
  bool in_metadata_ = false;
  std::string field_;                      // the latest key
  std::vector<uint64_t>* list_ = nullptr;  // while inside of one
  absl::flat_hash_set<std::string> names_;
  std::vector<Entry> entries_;
  std::vector<std::pair<std::string, std::string>> metadata_;
  std::string problem_;
};

// Bytes of a tensor.
absl::StatusOr<uint64_t> SizeOf(const Entry& entry) {
  const uint64_t element_bytes = ElementBytes(entry.dtype);
  if (element_bytes == 0) {
    return absl::UnimplementedError(absl::StrCat("tensor ", Quoted(entry.name),
                                                 " has the unknown type ",
                                                 Quoted(entry.dtype)));
  }
  uint64_t elements = 1;
  for (const uint64_t dim : entry.shape) {
    if (dim > kElementsMax || (dim > 0 && elements > kElementsMax / dim)) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor ", Quoted(entry.name), " has more than ",
                       kElementsMax, " elements"));
    }
    elements *= dim;
  }
  return elements * element_bytes;
}

}  // namespace

absl::Status SafetensorsReader::Parse() {
  if (bytes_.size() < kLengthBytes) {
    return absl::InvalidArgumentError(absl::StrCat(
        "no safetensors file: it has ", bytes_.size(),
        " bytes, the length of its header alone takes ", kLengthBytes));
  }
  uint64_t length;
  std::memcpy(&length, bytes_.data(), kLengthBytes);
  if (length > kHeaderBytesMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("no safetensors file: its header would have ", length,
                     " bytes; at most ", kHeaderBytesMax, " are allowed"));
  }
  if (length > bytes_.size() - kLengthBytes) {
    return absl::DataLossError(absl::StrCat(
        "its header has ", length, " bytes, of which the file holds ",
        bytes_.size() - kLengthBytes, ": it is cut short or damaged"));
  }
  header_ = bytes_.first(kLengthBytes + length);
  const absl::Span<const uint8_t> data = bytes_.subspan(header_.size());
  HeaderHandler handler;
  const uint8_t* const json = header_.data() + kLengthBytes;
  if (!Json::sax_parse(json, json + length, &handler)) {
    return absl::InvalidArgumentError(
        absl::StrCat("the header cannot be read: ", handler.problem()));
  }
  metadata_ = std::move(handler.metadata());

  std::vector<std::pair<uint64_t, const Entry*>> placed;
  for (Entry& entry : handler.entries()) {
    ASSIGN_OR_RETURN(const uint64_t size, SizeOf(entry));
    if (entry.offsets.size() != 2 || entry.offsets[0] > entry.offsets[1] ||
        entry.offsets[1] - entry.offsets[0] != size) {
      return absl::InvalidArgumentError(absl::StrCat(
          "the offsets of tensor ", Quoted(entry.name), " do not enclose the ",
          size, " bytes that its type and shape take"));
    }
    if (entry.offsets[1] > data.size()) {
      return absl::DataLossError(absl::StrCat(
          "tensor ", Quoted(entry.name), " ends at byte ", entry.offsets[1],
          " of the data, of which the file holds ", data.size(), ": ",
          entry.offsets[1] - data.size(),
          " are missing; copy or download it again"));
    }
    if (size > 0) placed.push_back({entry.offsets[0], &entry});
    SafetensorsTensor tensor;
    tensor.name = entry.name;
    tensor.dtype = entry.dtype;
    tensor.shape.assign(entry.shape.begin(), entry.shape.end());
    tensor.data = data.subspan(entry.offsets[0], size);
    tensors_.push_back(std::move(tensor));
  }
  std::sort(placed.begin(), placed.end());
  for (size_t i = 1; i < placed.size(); ++i) {
    if (placed[i].first < placed[i - 1].second->offsets[1]) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor ", Quoted(placed[i - 1].second->name),
                       " overlaps tensor ", Quoted(placed[i].second->name)));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<SafetensorsReader>> SafetensorsReader::Open(
    const std::string& path) {
  std::unique_ptr<SafetensorsReader> reader(new SafetensorsReader);
  ASSIGN_OR_RETURN(reader->file_, MappedFile::Open(path));
  reader->bytes_ = reader->file_->bytes();
  const absl::Status status = reader->Parse();
  if (!status.ok()) {
    return absl::Status(status.code(),
                        absl::StrCat(path, ": ", status.message()));
  }
  return reader;
}

absl::StatusOr<std::unique_ptr<SafetensorsReader>> SafetensorsReader::FromBytes(
    absl::Span<const uint8_t> bytes) {
  std::unique_ptr<SafetensorsReader> reader(new SafetensorsReader);
  reader->bytes_ = bytes;
  RETURN_IF_ERROR(reader->Parse());
  return reader;
}

void SafetensorsReader::Release(absl::Span<const uint8_t> data) const {
  if (file_ != nullptr) MappedFile::Release(data);
}

}  // namespace tern
