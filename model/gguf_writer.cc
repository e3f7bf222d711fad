#include "model/gguf_writer.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "model/gguf_types.h"
#include "util/logging.h"
#include "util/status_macros.h"

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
              "GGUF values are written by memcpy");

namespace tern {
namespace {

constexpr size_t kTensorNameBytesMax = 63;
constexpr int64_t kDefaultAlignment = 32;
constexpr char kAlignmentKey[] = "general.alignment";

template <typename T>
std::string Raw(T value) {
  return std::string(reinterpret_cast<const char*>(&value), sizeof(value));
}

std::string RawString(absl::string_view text) {
  return absl::StrCat(Raw<uint64_t>(text.size()), text);
}

int64_t RoundUp(int64_t n, int64_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}

}  // namespace

void GgufHeader::SetUint32(absl::string_view key, uint32_t value) {
  const std::string raw = Raw(value);
  SetRaw(key, kGgufUint32,
         {reinterpret_cast<const uint8_t*>(raw.data()), raw.size()});
}

void GgufHeader::SetFloat(absl::string_view key, float value) {
  const std::string raw = Raw(value);
  SetRaw(key, kGgufFloat32,
         {reinterpret_cast<const uint8_t*>(raw.data()), raw.size()});
}

void GgufHeader::SetBool(absl::string_view key, bool value) {
  const uint8_t raw = value;
  SetRaw(key, kGgufBool, {&raw, 1});
}

void GgufHeader::SetString(absl::string_view key, absl::string_view value) {
  const std::string raw = RawString(value);
  SetRaw(key, kGgufString,
         {reinterpret_cast<const uint8_t*>(raw.data()), raw.size()});
}

void GgufHeader::SetStringArray(absl::string_view key,
                                absl::Span<const std::string> values) {
  std::string raw = Raw<uint32_t>(kGgufString) + Raw<uint64_t>(values.size());
  for (const std::string& value : values) raw += RawString(value);
  SetRaw(key, kGgufArray,
         {reinterpret_cast<const uint8_t*>(raw.data()), raw.size()});
}

void GgufHeader::SetInt32Array(absl::string_view key,
                               absl::Span<const int32_t> values) {
  std::string raw = Raw<uint32_t>(kGgufInt32) + Raw<uint64_t>(values.size());
  raw.append(reinterpret_cast<const char*>(values.data()),
             values.size() * sizeof(int32_t));
  SetRaw(key, kGgufArray,
         {reinterpret_cast<const uint8_t*>(raw.data()), raw.size()});
}

void GgufHeader::SetFloatArray(absl::string_view key,
                               absl::Span<const float> values) {
  std::string raw = Raw<uint32_t>(kGgufFloat32) + Raw<uint64_t>(values.size());
  raw.append(reinterpret_cast<const char*>(values.data()),
             values.size() * sizeof(float));
  SetRaw(key, kGgufArray,
         {reinterpret_cast<const uint8_t*>(raw.data()), raw.size()});
}

void GgufHeader::SetRaw(absl::string_view key, uint32_t type,
                        absl::Span<const uint8_t> bytes) {
  CHECK(!key.empty());
  std::string value(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  for (Pair& pair : pairs_) {
    if (pair.key != key) continue;
    pair.type = type;
    pair.value = std::move(value);
    return;
  }
  pairs_.push_back({std::string(key), type, std::move(value)});
}

absl::Status GgufHeader::AddTensor(absl::string_view name,
                                   absl::Span<const int64_t> dims,
                                   uint32_t type, int64_t bytes) {
  CHECK(!dims.empty() && dims.size() <= 4 && bytes >= 0);
  if (name.empty() || name.size() > kTensorNameBytesMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("tensor name '", name, "' has ", name.size(),
                     " bytes; allowed are 1 to ", kTensorNameBytesMax));
  }
  // Some hundred names; a set would be one more thing to keep.
  for (const Tensor& tensor : tensors_) {
    if (tensor.name == name) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor ", name, " is there already"));
    }
  }
  tensors_.push_back(
      {std::string(name), {dims.begin(), dims.end()}, type, bytes});
  return absl::OkStatus();
}

int64_t GgufHeader::Alignment() const {
  for (const Pair& pair : pairs_) {
    if (pair.key != kAlignmentKey) continue;
    uint32_t alignment = 0;
    CHECK(pair.value.size() == sizeof(alignment));
    std::memcpy(&alignment, pair.value.data(), sizeof(alignment));
    return alignment;
  }
  return kDefaultAlignment;
}

std::string GgufHeader::Serialize() const {
  std::string out =
      absl::StrCat("GGUF", Raw<uint32_t>(3), Raw<uint64_t>(tensors_.size()),
                   Raw<uint64_t>(pairs_.size()));
  for (const Pair& pair : pairs_) {
    absl::StrAppend(&out, RawString(pair.key), Raw(pair.type), pair.value);
  }
  const int64_t alignment = Alignment();
  int64_t offset = 0;
  for (const Tensor& tensor : tensors_) {
    absl::StrAppend(&out, RawString(tensor.name),
                    Raw<uint32_t>(tensor.dims.size()));
    for (int64_t dim : tensor.dims) out += Raw<uint64_t>(dim);
    absl::StrAppend(&out, Raw(tensor.type), Raw<uint64_t>(offset));
    offset += RoundUp(tensor.bytes, alignment);
  }
  out.resize(RoundUp(out.size(), alignment));
  return out;
}

absl::StatusOr<std::unique_ptr<GgufWriter>> GgufWriter::Create(
    const std::string& path, const GgufHeader& header, bool overwrite) {
  std::unique_ptr<GgufWriter> writer(new GgufWriter(path, overwrite));
  struct stat there;
  if (!overwrite && lstat(path.c_str(), &there) == 0) {
    return absl::AlreadyExistsError(absl::StrCat(path, " is there already"));
  }
  std::string temporary = path + ".XXXXXX";
  writer->fd_ = mkostemp(&temporary[0], O_CLOEXEC);
  if (writer->fd_ < 0) return writer->Error("creating it");
  writer->temporary_ = temporary;
  // mkostemp() lets the owner alone read it.
  const mode_t mask = umask(0);
  umask(mask);
  if (fchmod(writer->fd_, 0666 & ~mask) != 0) return writer->Error("creating");

  const std::string head = header.Serialize();
  writer->alignment_ = header.Alignment();
  writer->file_bytes_ = head.size();
  for (const GgufHeader::Tensor& tensor : header.tensors_) {
    writer->tensor_bytes_.push_back(tensor.bytes);
    writer->file_bytes_ += RoundUp(tensor.bytes, writer->alignment_);
  }
  // Says now, not after an hour, that the disk is too small. File systems that
  // cannot reserve say EOPNOTSUPP, and then the writes will tell.
  if (fallocate(writer->fd_, FALLOC_FL_KEEP_SIZE, 0, writer->file_bytes_) !=
          0 &&
      (errno == ENOSPC || errno == EFBIG || errno == EDQUOT)) {
    return writer->Error(
        absl::StrCat("reserving ", writer->file_bytes_, " bytes"));
  }
  RETURN_IF_ERROR(writer->Write(head.data(), head.size()));
  RETURN_IF_ERROR(writer->Advance());
  return writer;
}

GgufWriter::~GgufWriter() {
  if (fd_ >= 0) close(fd_);
  if (!temporary_.empty()) unlink(temporary_.c_str());
}

absl::Status GgufWriter::Error(absl::string_view what) const {
  const int error = errno;
  return absl::ErrnoToStatus(error, absl::StrCat(path_, ": ", what));
}

absl::Status GgufWriter::Write(const void* data, size_t size) {
  const char* p = static_cast<const char*>(data);
  while (size > 0) {
    const ssize_t n = write(fd_, p, size);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return Error("writing it");
    p += n;
    size -= n;
    written_bytes_ += n;
  }
  return absl::OkStatus();
}

absl::Status GgufWriter::Append(absl::Span<const uint8_t> bytes) {
  if (bytes.empty()) return absl::OkStatus();
  CHECK(tensor_ < tensor_bytes_.size() &&
        static_cast<int64_t>(bytes.size()) <=
            tensor_bytes_[tensor_] - tensor_written_)
      << "too many bytes for tensor " << tensor_;
  RETURN_IF_ERROR(Write(bytes.data(), bytes.size()));
  tensor_written_ += bytes.size();
  return Advance();
}

absl::Status GgufWriter::Advance() {
  while (tensor_ < tensor_bytes_.size() &&
         tensor_written_ == tensor_bytes_[tensor_]) {
    const std::string padding(
        RoundUp(tensor_written_, alignment_) - tensor_written_, '\0');
    RETURN_IF_ERROR(Write(padding.data(), padding.size()));
    ++tensor_;
    tensor_written_ = 0;
  }
  return absl::OkStatus();
}

absl::Status GgufWriter::Finish(bool sync) {
  CHECK(tensor_ == tensor_bytes_.size() && written_bytes_ == file_bytes_)
      << "tensor " << tensor_ << " is not complete";
  if (sync && fsync(fd_) != 0) return Error("writing it to disk");
  const int closed = close(std::exchange(fd_, -1));
  if (closed != 0) return Error("writing it to disk");
  int renamed = -1;
  if (!overwrite_) {
    renamed = renameat2(AT_FDCWD, temporary_.c_str(), AT_FDCWD, path_.c_str(),
                        RENAME_NOREPLACE);
    if (renamed != 0 && errno == EEXIST) {
      return absl::AlreadyExistsError(
          absl::StrCat(path_, " has come to be meanwhile"));
    }
  }
  // Not all file systems can refuse to replace; Create() has looked.
  if (overwrite_ || (renamed != 0 && errno == EINVAL)) {
    renamed = rename(temporary_.c_str(), path_.c_str());
  }
  if (renamed != 0) return Error("giving it its name");
  temporary_.clear();
  return absl::OkStatus();
}

}  // namespace tern
