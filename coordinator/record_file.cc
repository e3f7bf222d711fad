#include "coordinator/record_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>

#include "absl/strings/str_cat.h"
#include "util/crc32c.h"
#include "util/logging.h"

namespace tern {
namespace {

constexpr size_t kHeaderBytes = 12;

void AppendU32(uint32_t value, std::string* out) {
  for (int shift = 0; shift < 32; shift += 8) {
    out->push_back(static_cast<char>(value >> shift));
  }
}

uint32_t LoadU32(const char* p) {
  uint32_t value = 0;
  for (int i = 3; i >= 0; --i) {
    value = value << 8 | static_cast<unsigned char>(p[i]);
  }
  return value;
}

// A file being read, and how far.
class Input {
 public:
  explicit Input(const std::string& path)
      : path_(path), file_(std::fopen(path.c_str(), "rb"), std::fclose) {}

  bool is_open() const { return file_ != nullptr; }
  int64_t offset() const { return offset_; }
  absl::Status failure() const { return failure_; }

  // Up to `size` bytes; fewer at the end of the file, and after an error.
  absl::string_view Read(size_t size) {
    buffer_.resize(size);
    const size_t n = std::fread(&buffer_[0], 1, size, file_.get());
    if (n < size && std::ferror(file_.get())) {
      failure_ = absl::UnavailableError(absl::StrCat(
          path_, ": cannot read on at byte ", offset_, ": ", strerror(errno)));
    }
    offset_ += n;
    return absl::string_view(buffer_.data(), n);
  }

  // Whether all bytes from here to the end are zero.
  bool RestIsZero() {
    for (;;) {
      const absl::string_view bytes = Read(1 << 16);
      if (bytes.empty()) return true;
      if (bytes.find_first_not_of('\0') != absl::string_view::npos) {
        return false;
      }
    }
  }

  bool AtEnd() { return Read(1).empty(); }

 private:
  const std::string path_;
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file_;
  int64_t offset_ = 0;
  std::string buffer_;
  absl::Status failure_;
};

bool IsZero(absl::string_view bytes) {
  return bytes.find_first_not_of('\0') == absl::string_view::npos;
}

absl::Status Damaged(const std::string& path, int64_t offset,
                     absl::string_view what) {
  return absl::DataLossError(absl::StrCat(
      path, ": ", what, " at byte ", offset,
      ", and it is not the end of the file: move the file away to start "
      "without what it holds, or bring back an undamaged copy"));
}

}  // namespace

void AppendRecord(absl::string_view payload, std::string* out) {
  CHECK(payload.size() <= kMaxRecordBytes);
  const size_t begin = out->size();
  AppendU32(static_cast<uint32_t>(payload.size()), out);
  AppendU32(Crc32c(payload.data(), payload.size()), out);
  AppendU32(Crc32c(out->data() + begin, 8), out);
  out->append(payload.data(), payload.size());
}

absl::StatusOr<int64_t> ReadRecords(
    const std::string& path,
    absl::FunctionRef<absl::Status(absl::string_view payload)> on_record) {
  Input input(path);
  if (!input.is_open()) {
    const std::string message =
        absl::StrCat("cannot open ", path, ": ", strerror(errno));
    if (errno == ENOENT) return absl::NotFoundError(message);
    return absl::UnavailableError(message);
  }
  const absl::string_view magic = input.Read(kRecordFileMagic.size());
  if (!input.failure().ok()) return input.failure();
  if (magic != kRecordFileMagic) {
    if (magic == kRecordFileMagic.substr(0, magic.size())) return 0;
    return absl::DataLossError(absl::StrCat(
        path, " is no journal of this release: it does not begin with ",
        kRecordFileMagic, "; move it away to start without it"));
  }
  for (;;) {
    const int64_t begin = input.offset();
    const absl::string_view header_bytes = input.Read(kHeaderBytes);
    if (!input.failure().ok()) return input.failure();
    if (header_bytes.size() < kHeaderBytes) return begin;
    const std::string header(header_bytes.data(), header_bytes.size());
    const uint32_t size = LoadU32(header.data());
    if (LoadU32(header.data() + 8) != Crc32c(header.data(), 8) ||
        size > kMaxRecordBytes) {
      if (IsZero(header) && input.RestIsZero()) return begin;
      return Damaged(path, begin, "a record's head has a wrong checksum");
    }
    const absl::string_view payload = input.Read(size);
    if (!input.failure().ok()) return input.failure();
    if (payload.size() < size) return begin;
    if (LoadU32(header.data() + 4) != Crc32c(payload.data(), payload.size())) {
      if (input.AtEnd()) return begin;
      return Damaged(path, begin, "a record has a wrong checksum");
    }
    const absl::Status status = on_record(payload);
    if (!status.ok()) {
      return absl::Status(status.code(),
                          absl::StrCat(path, ", record at byte ", begin, ": ",
                                       status.message()));
    }
  }
}

absl::Status ReplaceRecordFile(const std::string& folder,
                               absl::string_view name,
                               absl::string_view payload) {
  const std::string path = absl::StrCat(folder, "/", name);
  const auto failed = [&path](absl::string_view what) {
    return absl::UnavailableError(
        absl::StrCat(path, ": ", what, ": ", strerror(errno)));
  };
  std::string bytes(kRecordFileMagic.data(), kRecordFileMagic.size());
  AppendRecord(payload, &bytes);
  const std::string unfinished = path + ".new";
  const int fd =
      open(unfinished.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (fd < 0) return failed("cannot make a new file");
  absl::Status status;
  for (size_t at = 0; status.ok() && at < bytes.size();) {
    const ssize_t n = write(fd, bytes.data() + at, bytes.size() - at);
    if (n > 0) {
      at += n;
    } else if (errno != EINTR) {
      status = failed("cannot write");
    }
  }
  if (status.ok() && fdatasync(fd) != 0) {
    status = failed("cannot force to the disk");
  }
  close(fd);
  if (status.ok() && std::rename(unfinished.c_str(), path.c_str()) != 0) {
    status = failed("cannot put the new file into its place");
  }
  if (!status.ok()) {
    unlink(unfinished.c_str());
    return status;
  }
  // The name, too.
  const int folder_fd = open(folder.c_str(), O_RDONLY | O_CLOEXEC);
  if (folder_fd >= 0) {
    fsync(folder_fd);
    close(folder_fd);
  }
  return absl::OkStatus();
}

}  // namespace tern
