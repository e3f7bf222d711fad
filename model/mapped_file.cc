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
  close(fd);
  if (problem != nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("cannot read model file ", path, ": ", problem));
  }
  return std::unique_ptr<MappedFile>(new MappedFile(
      absl::MakeConstSpan(static_cast<const uint8_t*>(map), size)));
}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) {
    munmap(const_cast<uint8_t*>(bytes_.data()), bytes_.size());
  }
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
