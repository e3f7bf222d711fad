#include "model/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace tern {

absl::StatusOr<std::unique_ptr<MappedFile>> MappedFile::Open(
    const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    return absl::Status(errno == ENOENT ? absl::StatusCode::kNotFound
                                        : absl::StatusCode::kInvalidArgument,
                        absl::StrCat("cannot open model file ", path, ": ",
                                     std::strerror(errno)));
  }
  struct stat info;
  void* map = nullptr;
  size_t size = 0;
  const char* problem = nullptr;
  if (fstat(fd, &info) != 0) {
    problem = std::strerror(errno);
  } else if (!S_ISREG(info.st_mode)) {
    problem = "it is no regular file";
  } else if (info.st_size > 0) {  // nothing can be mapped of an empty file
    size = static_cast<size_t>(info.st_size);
    map = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (map == MAP_FAILED) problem = std::strerror(errno);
  }
  if (problem != nullptr) {
    close(fd);
    return absl::InvalidArgumentError(
        absl::StrCat("cannot read model file ", path, ": ", problem));
  }
  return std::unique_ptr<MappedFile>(new MappedFile(
      fd, absl::MakeConstSpan(static_cast<const uint8_t*>(map), size)));
}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) {
    munmap(const_cast<uint8_t*>(bytes_.data()), bytes_.size());
  }
  close(fd_);
}

absl::StatusOr<FileIdentity> MappedFile::Identity() const {
  struct stat info;
  if (fstat(fd_, &info) != 0) {
    return absl::InternalError(absl::StrCat(
        "cannot look at a mapped model file: ", std::strerror(errno)));
  }
  const auto nanoseconds = [](const timespec& t) {
    return int64_t{t.tv_sec} * 1'000'000'000 + t.tv_nsec;
  };
  return FileIdentity{info.st_dev, info.st_ino, info.st_size,
                      nanoseconds(info.st_mtim), nanoseconds(info.st_ctim)};
}

absl::Status MappedFile::Read(int64_t offset, absl::Span<uint8_t> out) const {
  while (!out.empty()) {
    const ssize_t n = pread(fd_, out.data(), out.size(), offset);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      return absl::DataLossError(
          absl::StrCat("cannot read a model file at byte ", offset, ": ",
                       std::strerror(errno)));
    }
    if (n == 0) {
      return absl::DataLossError(absl::StrCat(
          "a model file ends at byte ", offset,
          ", shorter than when it was opened: it was cut while in use"));
    }
    offset += n;
    out.remove_prefix(n);
  }
  return absl::OkStatus();
}

void MappedFile::Release(absl::Span<const uint8_t> data) {
  if (data.empty()) return;
  // Whole pages, neighbours' bytes included.
  const uintptr_t page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const uintptr_t begin =
      reinterpret_cast<uintptr_t>(data.data()) & ~(page - 1);
  const uintptr_t end = reinterpret_cast<uintptr_t>(data.data()) + data.size();
  madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}

}  // namespace tern
