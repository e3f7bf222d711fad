#include "blob/hash_memory.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <system_error>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "util/crc32c.h"
#include "util/logging.h"

namespace tern {
namespace {

namespace fs = std::filesystem;

// Coarser than the clock of any file system that we know of.
constexpr absl::Duration kTimesAreCoarse = absl::Seconds(2);

// Files remembered on disk; beyond that, those written longest ago go.
constexpr size_t kFilesMax = 1024;

// A range takes some 90 bytes: a model of 70 billion weights has 5000.
constexpr uintmax_t kFileBytesMax = 64 << 20;

std::string HeaderOf(const FileIdentity& file) {
  return absl::StrCat("tern-hashes 1 ", file.bytes, " ", file.modified_ns, " ",
                      file.changed_ns, "\n");
}

std::string EndOf(absl::string_view text) {
  return absl::StrCat("end ", Crc32c(text.data(), text.size()), "\n");
}

// Forgets the oldest files of a folder that has too many.
void Prune(const std::string& folder) {
  std::error_code error;
  std::vector<std::pair<fs::file_time_type, fs::path>> files;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    const fs::file_time_type time = fs::last_write_time(entry.path(), error);
    if (!error) files.push_back({time, entry.path()});
  }
  if (files.size() <= kFilesMax) return;
  std::sort(files.begin(), files.end());
  files.resize(files.size() - kFilesMax);
  for (const auto& [time, path] : files) fs::remove(path, error);
}

}  // namespace

HashMemory::HashMemory(std::string folder) : folder_(std::move(folder)) {
  if (folder_.empty()) return;
  std::error_code error;
  fs::create_directories(folder_, error);
  if (error) {
    LOG(WARNING) << "event=no_hash_memory folder=" << folder_ << " reason=\""
                 << error.message()
                 << "\"; files are hashed again at each start";
  }
}

RangeHashes HashMemory::Recall(const FileIdentity& file) {
  const Key key(file.device, file.inode);
  absl::MutexLock lock(&mu_);
  const auto it = entries_.find(key);
  if (it != entries_.end() && it->second.file == file) {
    return it->second.hashes;
  }
  return ReadFromDisk(file);
}

void HashMemory::Remember(const FileIdentity& file, const RangeHashes& hashes,
                          absl::Time begin) {
  const absl::Time changed =
      absl::FromUnixNanos(std::max(file.modified_ns, file.changed_ns));
  if (begin - changed < kTimesAreCoarse) return;
  absl::MutexLock lock(&mu_);
  Entry& entry = entries_[Key(file.device, file.inode)];
  if (!(entry.file == file)) {
    entry.file = file;
    entry.hashes = ReadFromDisk(file);
  }
  entry.hashes.insert(hashes.begin(), hashes.end());
  if (!folder_.empty()) WriteToDisk(entry);
}

std::string HashMemory::PathOf(const FileIdentity& file) const {
  return absl::StrCat(folder_, "/", file.device, "-", file.inode);
}

RangeHashes HashMemory::ReadFromDisk(const FileIdentity& file) const {
  if (folder_.empty()) return {};
  const std::string path = PathOf(file);
  std::error_code error;
  const uintmax_t size = fs::file_size(path, error);
  if (error || size > kFileBytesMax) return {};
  std::ifstream stream(path, std::ios::binary);
  const std::string content(std::istreambuf_iterator<char>(stream), {});
  absl::string_view text = content;
  // Whole, or nothing: a torn file must not pass for hashes.
  const size_t end = content.rfind("end ");
  if (end == std::string::npos ||
      text.substr(end) != EndOf(text.substr(0, end))) {
    return {};
  }
  text = text.substr(0, end);
  if (!absl::ConsumePrefix(&text, HeaderOf(file))) return {};
  RangeHashes hashes;
  for (const absl::string_view line :
       absl::StrSplit(text, '\n', absl::SkipEmpty())) {
    const std::vector<absl::string_view> fields = absl::StrSplit(line, ' ');
    std::pair<int64_t, int64_t> range;
    Sha256Digest hash;
    if (fields.size() != 3 || !absl::SimpleAtoi(fields[0], &range.first) ||
        !absl::SimpleAtoi(fields[1], &range.second) ||
        !ParseSha256(fields[2], &hash)) {
      return {};
    }
    hashes[range] = hash;
  }
  return hashes;
}

void HashMemory::WriteToDisk(const Entry& entry) const {
  std::string text = HeaderOf(entry.file);
  for (const auto& [range, hash] : entry.hashes) {
    absl::StrAppend(&text, range.first, " ", range.second, " ",
                    Sha256Text(hash), "\n");
  }
  text += EndOf(text);
  // Renamed into place: nobody sees half of it.
  const std::string path = PathOf(entry.file);
  const std::string draft = absl::StrCat(path, ".", getpid());
  std::ofstream stream(draft, std::ios::binary);
  stream << text;
  stream.close();
  if (!stream || std::rename(draft.c_str(), path.c_str()) != 0) {
    LOG(WARNING) << "event=hashes_not_remembered file=" << path;
    std::remove(draft.c_str());
    return;
  }
  Prune(folder_);
}

}  // namespace tern
