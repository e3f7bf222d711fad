#include "worker/model_cache.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "util/logging.h"
#include "util/status_macros.h"

namespace tern {
namespace {

namespace fs = std::filesystem;

// Of a block in the file "blocks": one byte each, behind a header.
enum State : uint8_t {
  kHole = 0,      // nothing is there
  kGood = 1,      // its bytes had the right hash when they were written
  kRecheck = 2,   // they had, before the machine was started again
  kReserved = 3,  // room on the disk, and nothing in it
};

// "tern-blocks 1 <boot id>", filled up. Written bytes reach the disk in any
// order, so what a machine that lost its power has marked as good need not be.
constexpr size_t kStatesHeaderBytes = 64;

std::string StatesHeader() {
  std::ifstream stream("/proc/sys/kernel/random/boot_id");
  std::string boot_id;
  stream >> boot_id;
  std::string header = absl::StrCat("tern-blocks 1 ", boot_id.substr(0, 40));
  header.resize(kStatesHeaderBytes, ' ');
  return header;
}

absl::Status SystemError(absl::string_view what, const std::string& path) {
  const std::string text =
      absl::StrCat("cannot ", what, " ", path,
                   " of the model cache: ", std::strerror(errno));
  if (errno == ENOSPC || errno == EDQUOT) {
    return absl::ResourceExhaustedError(text);
  }
  return absl::InternalError(text);
}

// Everything that opens, fills up or removes replicas excludes each other, in
// all processes; writing and reading blocks does not.
class FolderLock {
 public:
  explicit FolderLock(int fd) : fd_(fd) {
    while (flock(fd_, LOCK_EX) != 0 && errno == EINTR) {
    }
  }
  ~FolderLock() { flock(fd_, LOCK_UN); }

 private:
  const int fd_;
};

std::string ReadText(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(stream), {});
}

absl::Status WriteText(const std::string& path, absl::string_view text) {
  const std::string draft = absl::StrCat(path, ".", getpid());
  std::ofstream stream(draft, std::ios::binary);
  stream << text;
  stream.close();
  if (!stream || std::rename(draft.c_str(), path.c_str()) != 0) {
    const absl::Status status = SystemError("write", path);
    std::remove(draft.c_str());
    return status;
  }
  return absl::OkStatus();
}

absl::Status PWrite(int fd, int64_t offset, absl::Span<const uint8_t> bytes) {
  while (!bytes.empty()) {
    const ssize_t n = pwrite(fd, bytes.data(), bytes.size(), offset);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return SystemError("write to", "a file");
    offset += n;
    bytes.remove_prefix(n);
  }
  return absl::OkStatus();
}

absl::Status PRead(int fd, int64_t offset, absl::Span<uint8_t> out) {
  while (!out.empty()) {
    const ssize_t n = pread(fd, out.data(), out.size(), offset);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) {
      return absl::DataLossError(
          "a file of the model cache was cut, or cannot be read");
    }
    offset += n;
    out.remove_prefix(n);
  }
  return absl::OkStatus();
}

int64_t AllocatedBytes(const fs::path& folder) {
  int64_t bytes = 0;
  std::error_code error;
  for (const auto& entry : fs::recursive_directory_iterator(folder, error)) {
    struct stat info;
    if (lstat(entry.path().c_str(), &info) == 0) {
      bytes += int64_t{info.st_blocks} * 512;
    }
  }
  return bytes;
}

}  // namespace

CachedModel::~CachedModel() {
  if (states_ != nullptr) munmap(states_, states_bytes_);
  for (const int fd : fds_) close(fd);
  if (lock_fd_ >= 0) close(lock_fd_);
}

uint8_t CachedModel::StateOf(int block) const {
  return __atomic_load_n(&states_[kStatesHeaderBytes + block],
                         __ATOMIC_ACQUIRE);
}

void CachedModel::SetState(int block, uint8_t state) {
  __atomic_store_n(&states_[kStatesHeaderBytes + block], state,
                   __ATOMIC_RELEASE);
}

bool CachedModel::Has(int block) const { return StateOf(block) == kGood; }

bool CachedModel::MustRecheck(int block) const {
  return StateOf(block) == kRecheck;
}

void CachedModel::SetRechecked(int block, bool is_good) {
  SetState(block, is_good ? kGood : kReserved);
}

absl::Status CachedModel::ReadUnchecked(int block,
                                        absl::Span<uint8_t> out) const {
  return PRead(fds_[blocks_[block].file], blocks_[block].offset, out);
}

absl::Status CachedModel::Store(int block, absl::Span<const uint8_t> bytes) {
  CHECK(static_cast<int64_t>(bytes.size()) == blocks_[block].bytes);
  RETURN_IF_ERROR(
      PWrite(fds_[blocks_[block].file], blocks_[block].offset, bytes));
  // Only now: whoever is killed in between fetches the block again.
  SetState(block, kGood);
  return absl::OkStatus();
}

absl::Status CachedModel::Read(int file, int64_t offset,
                               absl::Span<uint8_t> out) const {
  const int64_t end = offset + static_cast<int64_t>(out.size());
  // The last block that begins at `offset` or before.
  const auto next = std::upper_bound(
      blocks_.begin(), blocks_.end(), std::make_pair(file, offset),
      [](const std::pair<int, int64_t>& place, const ManifestBlock& block) {
        return place < std::make_pair(block.file, block.offset);
      });
  int64_t covered = offset;
  for (int i = static_cast<int>(next - blocks_.begin()) - 1;
       covered < end && i >= 0 && i < static_cast<int>(blocks_.size()); ++i) {
    const ManifestBlock& block = blocks_[i];
    if (block.file != file || block.offset > covered ||
        block.offset + block.bytes <= covered || !Has(i)) {
      break;
    }
    covered = block.offset + block.bytes;
  }
  if (covered < end) {
    return absl::NotFoundError(
        absl::StrCat("these bytes of content ", content_id_, " are not here"));
  }
  return PRead(fds_[file], offset, out);
}

absl::Status CachedModel::Open(const std::string& folder,
                               absl::string_view manifest_text) {
  const std::string manifest_path = folder + "/manifest";
  manifest_text_ = ReadText(manifest_path);
  if (ContentIdOf(manifest_text_) != content_id_) {
    if (manifest_text.empty()) {
      return absl::NotFoundError(
          absl::StrCat("content ", content_id_, " is not in the cache"));
    }
    if (ContentIdOf(manifest_text) != content_id_) {
      return absl::DataLossError(
          absl::StrCat("a manifest is not the one of content ", content_id_));
    }
    manifest_text_ = std::string(manifest_text);
    RETURN_IF_ERROR(WriteText(manifest_path, manifest_text_));
  }
  ASSIGN_OR_RETURN(manifest_, ParseManifest(manifest_text_));
  blocks_ = manifest_.Blocks();
  const std::string lock_path = folder + "/lock";
  lock_fd_ = open(lock_path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  // Nobody holds it exclusively but for a removal, and those wait for us.
  if (lock_fd_ < 0 || flock(lock_fd_, LOCK_SH | LOCK_NB) != 0) {
    return SystemError("lock", lock_path);
  }
  // Its time says when the replica was last used.
  RETURN_IF_ERROR(WriteText(folder + "/used", ""));
  return OpenFiles(folder);
}

absl::Status CachedModel::OpenFiles(const std::string& folder) {
  const std::string files = folder + "/files";
  bool is_complete = true;
  bool is_directory = false;
  for (const ManifestFile& file : manifest_.files) {
    const std::string path = absl::StrCat(files, "/", file.name);
    if (file.name == "config.json") is_directory = true;
    const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0) return SystemError("open", path);
    fds_.push_back(fd);
    struct stat info;
    if (fstat(fd, &info) != 0) return SystemError("look at", path);
    if (info.st_size == file.bytes) continue;
    is_complete = false;
    if (ftruncate(fd, file.bytes) != 0) return SystemError("size", path);
  }
  path_ =
      is_directory ? files : absl::StrCat(files, "/", manifest_.files[0].name);
  return OpenStates(folder + "/blocks", /*forget=*/!is_complete);
}

absl::Status CachedModel::OpenStates(const std::string& path, bool forget) {
  const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (fd < 0) return SystemError("open", path);
  states_bytes_ = kStatesHeaderBytes + blocks_.size();
  struct stat info;
  absl::Status status;
  void* map = MAP_FAILED;
  if (fstat(fd, &info) != 0 || ftruncate(fd, states_bytes_) != 0) {
    status = SystemError("size", path);
  } else if (posix_fallocate(fd, 0, states_bytes_) == ENOSPC) {
    // Or a full disk would end the process when a state is set.
    errno = ENOSPC;
    status = SystemError("size", path);
  } else {
    map =
        mmap(nullptr, states_bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) status = SystemError("map", path);
  }
  close(fd);
  RETURN_IF_ERROR(status);
  states_ = static_cast<uint8_t*>(map);
  const std::string header = StatesHeader();
  const bool is_new = info.st_size != static_cast<int64_t>(states_bytes_);
  const bool is_of_this_boot =
      std::memcmp(states_, header.data(), header.size()) == 0;
  for (size_t i = 0; i < blocks_.size(); ++i) {
    const uint8_t state = StateOf(static_cast<int>(i));
    if (is_new || forget) {
      SetState(static_cast<int>(i), kHole);
    } else if (!is_of_this_boot && state == kGood) {
      SetState(static_cast<int>(i), kRecheck);
    }
  }
  std::memcpy(states_, header.data(), header.size());
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<ModelCache>> ModelCache::Create(
    const Options& options) {
  std::unique_ptr<ModelCache> cache(new ModelCache(options));
  std::error_code error;
  fs::create_directories(options.folder + "/models", error);
  const std::string lock_path = options.folder + "/lock";
  if (!error) {
    cache->lock_fd_ =
        open(lock_path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  }
  if (cache->lock_fd_ < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("--cache_dir: cannot write to the folder ", options.folder,
                     ": ", error ? error.message() : std::strerror(errno)));
  }
  if (options.bytes_max < 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--cache_max_bytes is ", options.bytes_max, "; it must be at least 1"));
  }
  return cache;
}

ModelCache::~ModelCache() {
  if (lock_fd_ >= 0) close(lock_fd_);
}

std::string ModelCache::FolderOf(absl::string_view content_id) const {
  return absl::StrCat(options_.folder, "/models/", content_id);
}

absl::StatusOr<std::shared_ptr<CachedModel>> ModelCache::Open(
    absl::string_view content_id, absl::string_view manifest_text) {
  if (!IsContentId(content_id)) {
    return absl::InvalidArgumentError("a content id has 64 hexadecimal digits");
  }
  absl::MutexLock lock(&mu_);
  std::weak_ptr<CachedModel>& known = open_[std::string(content_id)];
  if (std::shared_ptr<CachedModel> model = known.lock()) return model;
  const FolderLock folder_lock(lock_fd_);
  const std::string folder = FolderOf(content_id);
  std::error_code error;
  if (manifest_text.empty() && !fs::exists(folder, error)) {
    open_.erase(std::string(content_id));
    return absl::NotFoundError(
        absl::StrCat("content ", content_id, " is not in the cache"));
  }
  fs::create_directories(folder + "/files", error);
  if (error) {
    errno = error.value();
    return SystemError("make folder", folder);
  }
  std::shared_ptr<CachedModel> model(new CachedModel);
  model->content_id_ = std::string(content_id);
  RETURN_IF_ERROR(model->Open(folder, manifest_text));
  known = model;
  return model;
}

std::shared_ptr<const BlobContent> ModelCache::Find(
    absl::string_view content_id) {
  auto model = Open(content_id, "");
  return model.ok() ? *std::move(model) : nullptr;
}

int64_t ModelCache::UsedBytes() const {
  return AllocatedBytes(options_.folder + "/models");
}

bool ModelCache::RemoveOldest() {
  std::vector<std::pair<fs::file_time_type, fs::path>> models;
  std::error_code error;
  for (const auto& entry :
       fs::directory_iterator(options_.folder + "/models", error)) {
    std::error_code no_time;
    const auto used = fs::last_write_time(entry.path() / "used", no_time);
    models.push_back(
        {no_time ? fs::file_time_type::min() : used, entry.path()});
  }
  std::sort(models.begin(), models.end());
  for (const auto& [used, path] : models) {
    const int fd =
        open((path / "lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    const bool is_free = fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0;
    if (is_free) {
      const int64_t bytes = AllocatedBytes(path);
      fs::remove_all(path, error);
      LOG(INFO) << "event=cached_model_removed content="
                << path.filename().string() << " bytes=" << bytes;
    }
    if (fd >= 0) close(fd);
    if (is_free && !error) return true;
  }
  return false;
}

absl::Status ModelCache::Reserve(CachedModel* model,
                                 absl::Span<const int> blocks) {
  absl::MutexLock lock(&mu_);
  const FolderLock folder_lock(lock_fd_);
  std::vector<int> holes;
  int64_t bytes = 0;
  for (const int block : blocks) {
    if (model->StateOf(block) != kHole) continue;
    holes.push_back(block);
    bytes += model->blocks_[block].bytes;
  }
  while (!holes.empty()) {
    const int64_t used = UsedBytes();
    struct statvfs disk;
    const bool disk_known = statvfs(options_.folder.c_str(), &disk) == 0;
    const int64_t free =
        disk_known ? static_cast<int64_t>(disk.f_bavail) * disk.f_frsize
                   : bytes;
    if (bytes <= options_.bytes_max - used && bytes <= free) break;
    if (RemoveOldest()) continue;
    const std::string what =
        absl::StrCat("the weights of this stage need ", bytes,
                     " more bytes of the model cache ", options_.folder);
    if (bytes > options_.bytes_max - used) {
      return absl::ResourceExhaustedError(absl::StrCat(
          what, ", which may hold ", options_.bytes_max, " and has ", used,
          " in use: raise --cache_max_bytes, or use more stages"));
    }
    return absl::ResourceExhaustedError(
        absl::StrCat(what, ", whose disk has ", free,
                     " free: make room, or use another --cache_dir"));
  }
  for (const int block : holes) {
    const ManifestBlock& place = model->blocks_[block];
    if (fallocate(model->fds_[place.file], 0, place.offset, place.bytes) != 0 &&
        errno != EOPNOTSUPP && errno != ENOSYS) {
      return SystemError("make room in", model->path_);
    }
    model->SetState(block, kReserved);
  }
  return absl::OkStatus();
}

}  // namespace tern
