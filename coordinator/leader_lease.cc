#include "coordinator/leader_lease.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace tern {
namespace {

class FileLease : public LeaderLease {
 public:
  FileLease(std::string path, std::string name)
      : path_(std::move(path)), name_(std::move(name)) {}

  ~FileLease() override {
    if (fd_ >= 0) close(fd_);
  }

  absl::Status Open() {
    fd_ = open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    return fd_ >= 0 ? absl::OkStatus() : Failed("cannot open");
  }

  absl::StatusOr<bool> TryAcquire() override {
    if (flock(fd_, LOCK_EX | LOCK_NB) != 0) {
      if (errno == EWOULDBLOCK || errno == EINTR) return false;
      return Failed("cannot lock");
    }
    // For people only: the lock alone counts.
    if (ftruncate(fd_, 0) != 0 ||
        pwrite(fd_, name_.data(), name_.size(), 0) < 0) {
      return Failed("cannot write");
    }
    return true;
  }

  std::string Holder() override {
    char name[256];
    const ssize_t n = pread(fd_, name, sizeof(name), 0);
    return n > 0 ? std::string(name, n) : "";
  }

 private:
  absl::Status Failed(absl::string_view what) const {
    return absl::UnavailableError(
        absl::StrCat(what, " ", path_, ": ", strerror(errno),
                     "; name a folder that this user may write, on a file "
                     "system with locks, with --journal_dir"));
  }

  const std::string path_;
  const std::string name_;
  int fd_ = -1;
};

}  // namespace

absl::StatusOr<std::unique_ptr<LeaderLease>> OpenFileLease(
    const std::string& folder, const std::string& name) {
  // What is wrong with the folder is seen when the file is opened.
  mkdir(folder.c_str(), 0700);
  auto lease =
      std::make_unique<FileLease>(absl::StrCat(folder, "/leader.lock"), name);
  const absl::Status status = lease->Open();
  if (!status.ok()) return status;
  return lease;
}

}  // namespace tern
