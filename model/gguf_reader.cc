#include "model/gguf_reader.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "model/gguf_types.h"
#include "model/mapped_file.h"
#include "util/crc32c.h"
#include "util/status_macros.h"

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
              "GGUF values are read by memcpy");

namespace tern {
namespace {

// Far above any model; with them no count in a header costs much.
constexpr uint64_t kTensorsMax = 65536;
constexpr uint64_t kPairsMax = 65536;
constexpr uint64_t kKeyBytesMax = 65535;
constexpr uint64_t kTensorNameBytesMax = 63;
constexpr uint32_t kDimensionsMax = 4;
constexpr uint64_t kElementsMax = uint64_t{1} << 48;
constexpr uint64_t kDefaultAlignment = 32;
constexpr uint64_t kAlignmentMax = 65536;
constexpr int64_t kSplitPartsMax = 99999;  // five digits in their names
constexpr size_t kHeaderBytes = 24;
constexpr uint64_t kPairBytesMin = 13;    // 8 + 4 + 1, counting no key byte
constexpr uint64_t kTensorBytesMin = 32;  // 8 + 4 + 8 + 4 + 8

// Names come from the file: printable and short in messages.
std::string Quoted(absl::string_view name) {
  constexpr size_t kShown = 80;
  return absl::StrCat("'", absl::CHexEscape(name.substr(0, kShown)),
                      name.size() > kShown ? "...'" : "'");
}

template <typename T>
T Load(const uint8_t* p) {
  T value;
  std::memcpy(&value, p, sizeof(value));
  return value;
}

absl::string_view AsText(absl::Span<const uint8_t> bytes) {
  return absl::string_view(reinterpret_cast<const char*>(bytes.data()),
                           bytes.size());
}

}  // namespace

int64_t GgufTensor::rows() const {
  int64_t rows = 1;
  for (size_t i = 1; i < dims.size(); ++i) rows *= dims[i];
  return rows;
}

// Walks the header once, front to back. Every read goes through Take(), which
// is the one place that compares with the end of the file.
class GgufReader::Parser {
 public:
  explicit Parser(GgufReader* file) : file_(file), bytes_(file->bytes_) {}

  absl::Status Parse() {
    RETURN_IF_ERROR(ParseCounts());
    for (uint64_t i = 0; i < n_pairs_; ++i) RETURN_IF_ERROR(ParsePair());
    RETURN_IF_ERROR(ParseAlignment());
    for (uint64_t i = 0; i < n_tensors_; ++i) RETURN_IF_ERROR(ParseTensor());
    RETURN_IF_ERROR(PlaceTensors());
    const uint64_t size = bytes_.size();
    file_->fingerprint_ =
        uint64_t{Crc32c(bytes_.data(), std::min<uint64_t>(data_start_, size))}
            << 32 |
        Crc32c(&size, sizeof(size));
    file_->file_bytes_ = size;
    return absl::OkStatus();
  }

 private:
  uint64_t Remaining() const { return bytes_.size() - pos_; }

  // Steps over `n` bytes, the `what` of something.
  absl::StatusOr<const uint8_t*> Take(uint64_t n, absl::string_view what) {
    if (n > Remaining()) {
      return absl::DataLossError(absl::StrCat(
          what, " at offset ", pos_, " takes ", n, " bytes, but the file ends ",
          Remaining(), " bytes behind it: it is cut short or damaged"));
    }
    const uint8_t* p = bytes_.data() + pos_;
    pos_ += n;
    return p;
  }

  template <typename T>
  absl::StatusOr<T> Read(absl::string_view what) {
    ASSIGN_OR_RETURN(const uint8_t* p, Take(sizeof(T), what));
    return Load<T>(p);
  }

  absl::StatusOr<absl::string_view> ReadString(absl::string_view what) {
    ASSIGN_OR_RETURN(const uint64_t size, Read<uint64_t>(what));
    ASSIGN_OR_RETURN(const uint8_t* p, Take(size, what));
    return AsText(absl::MakeConstSpan(p, size));
  }

  absl::Status ParseCounts() {
    if (bytes_.size() < kHeaderBytes) {
      return absl::InvalidArgumentError(
          absl::StrCat("no GGUF file: it has ", bytes_.size(),
                       " bytes, a GGUF header has ", kHeaderBytes));
    }
    if (std::memcmp(bytes_.data(), "GGUF", 4) != 0) {
      return absl::InvalidArgumentError(absl::StrCat(
          "no GGUF file: it begins with ", Quoted(AsText(bytes_.subspan(0, 4))),
          ", not with 'GGUF'"));
    }
    pos_ = 4;
    ASSIGN_OR_RETURN(const uint32_t version, Read<uint32_t>("version"));
    if ((version & 0xffff) == 0) {
      return absl::InvalidArgumentError(
          "a big-endian GGUF file; Tern reads little-endian files");
    }
    if (version != 2 && version != 3) {
      return absl::InvalidArgumentError(
          absl::StrCat("GGUF version ", version, "; Tern reads 2 and 3"));
    }
    ASSIGN_OR_RETURN(n_tensors_, Read<uint64_t>("tensor count"));
    ASSIGN_OR_RETURN(n_pairs_, Read<uint64_t>("metadata count"));
    RETURN_IF_ERROR(
        CheckCount("tensors", n_tensors_, kTensorsMax, kTensorBytesMin));
    return CheckCount("metadata pairs", n_pairs_, kPairsMax, kPairBytesMin);
  }

  absl::Status CheckCount(absl::string_view what, uint64_t count,
                          uint64_t count_max, uint64_t bytes_min) const {
    if (count > count_max) {
      return absl::InvalidArgumentError(
          absl::StrCat("the header announces ", count, " ", what, "; at most ",
                       count_max, " are allowed"));
    }
    if (count > Remaining() / bytes_min) {
      return absl::DataLossError(absl::StrCat(
          "the header announces ", count, " ", what, ", for which the ",
          bytes_.size(), " bytes of the file cannot suffice"));
    }
    return absl::OkStatus();
  }

  absl::Status ParsePair() {
    const size_t key_offset = pos_;
    ASSIGN_OR_RETURN(const absl::string_view key, ReadString("metadata key"));
    if (key.empty() || key.size() > kKeyBytesMax) {
      return absl::InvalidArgumentError(
          absl::StrCat("metadata key at offset ", key_offset, " has ",
                       key.size(), " bytes; allowed are 1 to ", kKeyBytesMax));
    }
    if (absl::StrContains(key, '\0')) {
      return absl::InvalidArgumentError(
          absl::StrCat("metadata key ", Quoted(key), " holds a zero byte"));
    }
    Value value{};
    ASSIGN_OR_RETURN(value.type, Read<uint32_t>("metadata type"));
    if (value.type == kGgufArray) {
      RETURN_IF_ERROR(ParseArray(key, &value));
    } else {
      value.offset = pos_;
      RETURN_IF_ERROR(ParseScalar(key, value.type));
    }
    if (!file_->values_.emplace(std::string(key), value).second) {
      return absl::InvalidArgumentError(
          absl::StrCat("metadata key ", Quoted(key), " occurs twice"));
    }
    return absl::OkStatus();
  }

  absl::Status ParseScalar(absl::string_view key, uint32_t type) {
    if (type == kGgufString) return ReadString("metadata string").status();
    const int size = GgufValueBytes(type);
    if (size == 0) {
      return absl::InvalidArgumentError(absl::StrCat(
          "metadata key ", Quoted(key), " has the unknown type ", type));
    }
    ASSIGN_OR_RETURN(const uint8_t* p, Take(size, "metadata value"));
    if (type == kGgufBool && *p > 1) {
      return absl::InvalidArgumentError(
          absl::StrCat("metadata key ", Quoted(key),
                       " is a truth value and holds ", *p, ", not 0 or 1"));
    }
    return absl::OkStatus();
  }

  absl::Status ParseArray(absl::string_view key, Value* value) {
    ASSIGN_OR_RETURN(value->element_type, Read<uint32_t>("array type"));
    ASSIGN_OR_RETURN(value->count, Read<uint64_t>("array length"));
    value->offset = pos_;
    if (value->element_type == kGgufArray) {
      return absl::InvalidArgumentError(
          absl::StrCat("metadata key ", Quoted(key),
                       " is an array of arrays, which Tern does not read"));
    }
    const uint64_t element_bytes = value->element_type == kGgufString
                                       ? 8
                                       : GgufValueBytes(value->element_type);
    if (element_bytes == 0) {
      return absl::InvalidArgumentError(absl::StrCat(
          "metadata key ", Quoted(key), " is an array of the unknown type ",
          value->element_type));
    }
    if (value->count > Remaining() / element_bytes) {
      return absl::DataLossError(absl::StrCat(
          "metadata key ", Quoted(key), " announces ", value->count,
          " elements, but the file ends ", Remaining(),
          " bytes behind it: it is cut short or damaged"));
    }
    if (value->element_type != kGgufString) {
      pos_ += value->count * element_bytes;
      return absl::OkStatus();
    }
    for (uint64_t i = 0; i < value->count; ++i) {
      RETURN_IF_ERROR(ReadString("array string").status());
    }
    return absl::OkStatus();
  }

  absl::Status ParseAlignment() {
    const auto it = file_->values_.find("general.alignment");
    if (it == file_->values_.end()) return absl::OkStatus();
    if (it->second.type != kGgufUint32) {
      return absl::InvalidArgumentError(
          "general.alignment has another type than uint32");
    }
    alignment_ = Load<uint32_t>(bytes_.data() + it->second.offset);
    if (alignment_ < 8 || alignment_ > kAlignmentMax ||
        (alignment_ & (alignment_ - 1)) != 0) {
      return absl::InvalidArgumentError(absl::StrCat(
          "general.alignment is ", alignment_,
          "; it must be a power of two from 8 to ", kAlignmentMax));
    }
    return absl::OkStatus();
  }

  absl::Status ParseTensor() {
    const size_t name_offset = pos_;
    ASSIGN_OR_RETURN(const absl::string_view name, ReadString("tensor name"));
    if (name.empty() || name.size() > kTensorNameBytesMax) {
      return absl::InvalidArgumentError(absl::StrCat(
          "tensor name at offset ", name_offset, " has ", name.size(),
          " bytes; allowed are 1 to ", kTensorNameBytesMax));
    }
    GgufTensor tensor;
    tensor.name = std::string(name);
    ASSIGN_OR_RETURN(const uint32_t n_dims, Read<uint32_t>("tensor shape"));
    if (n_dims < 1 || n_dims > kDimensionsMax) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor ", Quoted(name), " has ", n_dims,
                       " dimensions; allowed are 1 to ", kDimensionsMax));
    }
    uint64_t elements = 1;
    for (uint32_t i = 0; i < n_dims; ++i) {
      ASSIGN_OR_RETURN(const uint64_t dim, Read<uint64_t>("tensor shape"));
      if (dim == 0) {
        return absl::InvalidArgumentError(
            absl::StrCat("tensor ", Quoted(name), " has a dimension of 0"));
      }
      if (dim > kElementsMax / elements) {
        return absl::InvalidArgumentError(
            absl::StrCat("tensor ", Quoted(name), " has more than ",
                         kElementsMax, " elements"));
      }
      elements *= dim;
      tensor.dims.push_back(static_cast<int64_t>(dim));
    }
    ASSIGN_OR_RETURN(tensor.type, Read<uint32_t>("tensor type"));
    ASSIGN_OR_RETURN(const uint64_t offset, Read<uint64_t>("tensor offset"));
    if (offset % alignment_ != 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor ", Quoted(name), " has offset ", offset,
                       ", which is no multiple of the alignment ", alignment_));
    }
    const int index = static_cast<int>(file_->tensors_.size());
    if (!file_->tensor_index_.emplace(tensor.name, index).second) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor ", Quoted(name), " occurs twice"));
    }
    file_->tensors_.push_back(std::move(tensor));
    offsets_.push_back(offset);
    return absl::OkStatus();
  }

  // Gives each tensor its bytes, in the order of their offsets, so that one
  // comparison with the neighbour finds overlaps.
  absl::Status PlaceTensors() {
    data_start_ = (pos_ + alignment_ - 1) / alignment_ * alignment_;
    std::vector<int> order(offsets_.size());
    for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int>(i);
    std::sort(order.begin(), order.end(), [this](int a, int b) {
      return std::make_pair(offsets_[a], a) < std::make_pair(offsets_[b], b);
    });
    const uint64_t data_bytes =
        data_start_ < bytes_.size() ? bytes_.size() - data_start_ : 0;
    for (size_t i = 0; i < order.size(); ++i) {
      GgufTensor& tensor = file_->tensors_[order[i]];
      const uint64_t begin = offsets_[order[i]];
      const bool is_last = i + 1 == order.size();
      const uint64_t next = is_last ? data_bytes : offsets_[order[i + 1]];
      const uint64_t extent = next > begin ? next - begin : 0;
      const absl::StatusOr<uint64_t> bytes =
          GgufTensorBytes(tensor.type, tensor.dims, extent, alignment_);
      if (!bytes.ok()) {
        return absl::Status(bytes.status().code(),
                            absl::StrCat("tensor ", Quoted(tensor.name), ": ",
                                         bytes.status().message()));
      }
      // Truncation first: it is what happens, and it explains the rest.
      if (begin > data_bytes || *bytes > data_bytes - begin) {
        const uint64_t missing = begin > data_bytes
                                     ? begin - data_bytes + *bytes
                                     : *bytes - (data_bytes - begin);
        return absl::DataLossError(absl::StrCat(
            "tensor ", Quoted(tensor.name), " takes ", *bytes,
            " bytes from offset ", data_start_ + begin, ", but the file has ",
            bytes_.size(), " bytes: ", missing,
            " are missing; copy or download it again"));
      }
      if (!is_last && *bytes > extent) {
        return absl::InvalidArgumentError(
            absl::StrCat("tensor ", Quoted(tensor.name), " overlaps tensor ",
                         Quoted(file_->tensors_[order[i + 1]].name)));
      }
      tensor.data = bytes_.subspan(data_start_ + begin, *bytes);
    }
    return absl::OkStatus();
  }

  GgufReader* const file_;
  const absl::Span<const uint8_t> bytes_;
  size_t pos_ = 0;
  uint64_t n_tensors_ = 0;
  uint64_t n_pairs_ = 0;
  uint64_t alignment_ = kDefaultAlignment;
  uint64_t data_start_ = 0;
  std::vector<uint64_t> offsets_;  // of tensors_, relative to data_start_
};

absl::StatusOr<std::unique_ptr<GgufReader>> GgufReader::OpenPart(
    const std::string& path) {
  std::unique_ptr<GgufReader> reader(new GgufReader);
  ASSIGN_OR_RETURN(reader->file_, MappedFile::Open(path));
  reader->bytes_ = reader->file_->bytes();
  const absl::Status status = Parser(reader.get()).Parse();
  if (!status.ok()) {
    return absl::Status(status.code(),
                        absl::StrCat(path, ": ", status.message()));
  }
  return reader;
}

absl::StatusOr<std::unique_ptr<GgufReader>> GgufReader::Open(
    const std::string& path) {
  ASSIGN_OR_RETURN(std::unique_ptr<GgufReader> reader, OpenPart(path));
  ASSIGN_OR_RETURN(const int64_t count, reader->PartCount());
  if (count == 1) return reader;
  const absl::Status status = reader->AddParts(path, count);
  if (!status.ok()) {
    return absl::Status(status.code(),
                        absl::StrCat(path, ": ", status.message()));
  }
  return reader;
}

absl::StatusOr<std::unique_ptr<GgufReader>> GgufReader::FromBytes(
    absl::Span<const uint8_t> bytes) {
  std::unique_ptr<GgufReader> reader(new GgufReader);
  reader->bytes_ = bytes;
  RETURN_IF_ERROR(Parser(reader.get()).Parse());
  ASSIGN_OR_RETURN(const int64_t count, reader->PartCount());
  if (count != 1) {
    return absl::UnimplementedError(
        absl::StrCat("one of ", count,
                     " parts of a split model, which are read from files"));
  }
  return reader;
}

GgufReader::GgufReader() = default;
GgufReader::~GgufReader() = default;

absl::StatusOr<int64_t> GgufReader::PartCount() const {
  if (!HasKey("split.count")) return 1;
  ASSIGN_OR_RETURN(const int64_t count, GetInt("split.count"));
  if (count <= 1) return 1;
  if (count > kSplitPartsMax) {
    return absl::InvalidArgumentError(absl::StrCat(
        "split.count is ", count, "; at most ", kSplitPartsMax, " can be"));
  }
  return count;
}

absl::Status GgufReader::AddParts(const std::string& path, int64_t count) {
  const auto suffix = [count](int64_t index) {
    return absl::StrFormat("-%05d-of-%05d.gguf", index + 1, count);
  };
  ASSIGN_OR_RETURN(const int64_t own_index, GetInt("split.no"));
  absl::string_view stem = path;
  if (own_index != 0 || !absl::ConsumeSuffix(&stem, suffix(0))) {
    return absl::InvalidArgumentError(absl::StrCat(
        "one of ", count,
        " parts of a split model; open the first one, whose name ends in ",
        suffix(0)));
  }
  std::vector<uint32_t> headers = {static_cast<uint32_t>(fingerprint_ >> 32)};
  file_bytes_ = bytes_.size();
  for (int64_t i = 1; i < count; ++i) {
    const std::string part_path = absl::StrCat(stem, suffix(i));
    ASSIGN_OR_RETURN(std::unique_ptr<GgufReader> part, OpenPart(part_path));
    ASSIGN_OR_RETURN(const int64_t part_count, part->PartCount());
    const absl::StatusOr<int64_t> index = part->GetInt("split.no");
    if (part_count != count || !index.ok() || *index != i) {
      return absl::InvalidArgumentError(absl::StrCat(
          part_path, " is not part ", i + 1, " of ", count,
          " by its own metadata; the parts belong to different models"));
    }
    for (const GgufTensor& tensor : part->tensors_) {
      const int at = static_cast<int>(tensors_.size());
      if (!tensor_index_.emplace(tensor.name, at).second) {
        return absl::InvalidArgumentError(
            absl::StrCat("tensor ", Quoted(tensor.name), " of ", part_path,
                         " is in an earlier part, too"));
      }
      tensors_.push_back(tensor);
    }
    headers.push_back(static_cast<uint32_t>(part->fingerprint_ >> 32));
    file_bytes_ += part->bytes_.size();
    parts_.push_back(std::move(part->file_));
  }
  if (HasKey("split.tensors.count")) {
    ASSIGN_OR_RETURN(const int64_t n_tensors, GetInt("split.tensors.count"));
    if (n_tensors != static_cast<int64_t>(tensors_.size())) {
      return absl::InvalidArgumentError(
          absl::StrCat("the parts together have ", tensors_.size(),
                       " tensors; split.tensors.count says ", n_tensors));
    }
  }
  fingerprint_ =
      uint64_t{Crc32c(headers.data(), headers.size() * sizeof(uint32_t))}
          << 32 |
      Crc32c(&file_bytes_, sizeof(file_bytes_));
  return absl::OkStatus();
}

absl::StatusOr<const GgufReader::Value*> GgufReader::Find(
    absl::string_view key) const {
  const auto it = values_.find(key);
  if (it == values_.end()) {
    return absl::NotFoundError(
        absl::StrCat("the file has no metadata key ", Quoted(key)));
  }
  return &it->second;
}

namespace {

absl::Status WrongType(absl::string_view key, absl::string_view wanted) {
  return absl::InvalidArgumentError(
      absl::StrCat("metadata key ", Quoted(key), " is not ", wanted));
}

}  // namespace

absl::StatusOr<absl::string_view> GgufReader::GetString(
    absl::string_view key) const {
  ASSIGN_OR_RETURN(const Value* value, Find(key));
  if (value->type != kGgufString) return WrongType(key, "a string");
  const uint8_t* p = bytes_.data() + value->offset;
  return AsText(absl::MakeConstSpan(p + 8, Load<uint64_t>(p)));
}

absl::StatusOr<int64_t> GgufReader::GetInt(absl::string_view key) const {
  ASSIGN_OR_RETURN(const Value* value, Find(key));
  const uint8_t* p = bytes_.data() + value->offset;
  switch (value->type) {
    case kGgufUint8:
      return Load<uint8_t>(p);
    case kGgufInt8:
      return Load<int8_t>(p);
    case kGgufUint16:
      return Load<uint16_t>(p);
    case kGgufInt16:
      return Load<int16_t>(p);
    case kGgufUint32:
      return Load<uint32_t>(p);
    case kGgufInt32:
      return Load<int32_t>(p);
    case kGgufInt64:
      return Load<int64_t>(p);
    case kGgufUint64: {
      const uint64_t number = Load<uint64_t>(p);
      if (number > std::numeric_limits<int64_t>::max()) {
        return absl::InvalidArgumentError(
            absl::StrCat("metadata key ", Quoted(key), " is ", number,
                         ", which does not fit 63 bits"));
      }
      return static_cast<int64_t>(number);
    }
    default:
      return WrongType(key, "an integer");
  }
}

absl::StatusOr<double> GgufReader::GetFloat(absl::string_view key) const {
  ASSIGN_OR_RETURN(const Value* value, Find(key));
  const uint8_t* p = bytes_.data() + value->offset;
  double number;
  if (value->type == kGgufFloat32) {
    number = Load<float>(p);
  } else if (value->type == kGgufFloat64) {
    number = Load<double>(p);
  } else {
    return WrongType(key, "a floating-point number");
  }
  if (!std::isfinite(number)) {
    return absl::InvalidArgumentError(
        absl::StrCat("metadata key ", Quoted(key), " is not finite"));
  }
  return number;
}

absl::StatusOr<bool> GgufReader::GetBool(absl::string_view key) const {
  ASSIGN_OR_RETURN(const Value* value, Find(key));
  if (value->type != kGgufBool) return WrongType(key, "a truth value");
  return bytes_[value->offset] != 0;
}

absl::StatusOr<std::vector<absl::string_view>> GgufReader::GetStringArray(
    absl::string_view key) const {
  ASSIGN_OR_RETURN(const Value* value, Find(key));
  if (value->type != kGgufArray || value->element_type != kGgufString) {
    return WrongType(key, "an array of strings");
  }
  std::vector<absl::string_view> strings;
  strings.reserve(value->count);
  const uint8_t* p = bytes_.data() + value->offset;
  for (uint64_t i = 0; i < value->count; ++i) {
    const uint64_t size = Load<uint64_t>(p);
    strings.push_back(AsText(absl::MakeConstSpan(p + 8, size)));
    p += 8 + size;
  }
  return strings;
}

absl::StatusOr<std::vector<int32_t>> GgufReader::GetIntArray(
    absl::string_view key) const {
  ASSIGN_OR_RETURN(const Value* value, Find(key));
  if (value->type != kGgufArray || (value->element_type != kGgufInt32 &&
                                    value->element_type != kGgufUint32)) {
    return WrongType(key, "an array of 32-bit integers");
  }
  std::vector<int32_t> numbers(value->count);
  if (!numbers.empty()) {
    std::memcpy(numbers.data(), bytes_.data() + value->offset,
                numbers.size() * sizeof(int32_t));
  }
  if (value->element_type == kGgufUint32) {
    for (int32_t number : numbers) {
      if (number < 0) {
        return absl::InvalidArgumentError(absl::StrCat(
            "metadata key ", Quoted(key), " holds ",
            static_cast<uint32_t>(number), ", which does not fit 31 bits"));
      }
    }
  }
  return numbers;
}

absl::StatusOr<std::vector<float>> GgufReader::GetFloatArray(
    absl::string_view key) const {
  ASSIGN_OR_RETURN(const Value* value, Find(key));
  if (value->type != kGgufArray || value->element_type != kGgufFloat32) {
    return WrongType(key, "an array of 32-bit floats");
  }
  std::vector<float> numbers(value->count);
  if (!numbers.empty()) {
    std::memcpy(numbers.data(), bytes_.data() + value->offset,
                numbers.size() * sizeof(float));
  }
  return numbers;
}

bool GgufReader::HasKey(absl::string_view key) const {
  return values_.contains(key);
}

const GgufTensor* GgufReader::FindTensor(absl::string_view name) const {
  const auto it = tensor_index_.find(name);
  return it == tensor_index_.end() ? nullptr : &tensors_[it->second];
}

std::vector<std::shared_ptr<const MappedFile>> GgufReader::files() const {
  std::vector<std::shared_ptr<const MappedFile>> files;
  if (file_ != nullptr) files.push_back(file_);
  files.insert(files.end(), parts_.begin(), parts_.end());
  return files;
}

void GgufReader::Release(absl::Span<const uint8_t> data) const {
  if (file_ != nullptr) MappedFile::Release(data);
}

std::vector<std::string> GgufReader::keys() const {
  std::vector<std::pair<size_t, std::string>> placed;
  for (const auto& [key, value] : values_)
    placed.push_back({value.offset, key});
  std::sort(placed.begin(), placed.end());
  std::vector<std::string> keys;
  for (auto& [offset, key] : placed) keys.push_back(std::move(key));
  return keys;
}

absl::StatusOr<GgufReader::RawValue> GgufReader::GetRaw(
    absl::string_view key) const {
  ASSIGN_OR_RETURN(const Value* value, Find(key));
  // Parse() went the same way and found every length within the file.
  const bool is_array = value->type == kGgufArray;
  const uint32_t type = is_array ? value->element_type : value->type;
  const uint64_t count = is_array ? value->count : 1;
  size_t end = value->offset;
  if (type == kGgufString) {
    for (uint64_t i = 0; i < count; ++i) {
      end += sizeof(uint64_t) + Load<uint64_t>(bytes_.data() + end);
    }
  } else {
    end += count * GgufValueBytes(type);
  }
  const size_t begin =
      value->offset - (is_array ? sizeof(uint32_t) + sizeof(uint64_t) : 0);
  return RawValue{value->type, bytes_.subspan(begin, end - begin)};
}

std::string GgufReader::ValueText(absl::string_view key) const {
  const absl::StatusOr<const Value*> value = Find(key);
  if (!value.ok()) return "";
  switch ((*value)->type) {
    case kGgufString:
      return std::string(*GetString(key));
    case kGgufBool:
      return *GetBool(key) ? "true" : "false";
    case kGgufFloat32:
      return absl::StrCat(Load<float>(bytes_.data() + (*value)->offset));
    case kGgufFloat64:
      return absl::StrCat(Load<double>(bytes_.data() + (*value)->offset));
    case kGgufArray:
      return absl::StrCat("[", (*value)->count, " ",
                          GgufValueName((*value)->element_type), "]");
    case kGgufUint64:
      return absl::StrCat(Load<uint64_t>(bytes_.data() + (*value)->offset));
    default:
      return absl::StrCat(*GetInt(key));
  }
}

}  // namespace tern
