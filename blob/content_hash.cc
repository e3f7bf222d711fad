#include "blob/content_hash.h"

#include <algorithm>
#include <atomic>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "util/sha256.h"
#include "util/status_macros.h"

namespace tern {
namespace {

// Read at a time, so that hashing finds the bytes in the cache.
constexpr size_t kReadBytes = 256 << 10;

struct Range {
  int file;
  int64_t offset;
  int64_t bytes;
};

absl::StatusOr<Sha256Digest> HashRange(const MappedFile& file,
                                       const Range& range,
                                       std::vector<uint8_t>* buffer) {
  Sha256Stream stream;
  buffer->resize(kReadBytes);
  for (int64_t done = 0; done < range.bytes;) {
    const size_t n = std::min<int64_t>(kReadBytes, range.bytes - done);
    const absl::Span<uint8_t> piece(buffer->data(), n);
    RETURN_IF_ERROR(file.Read(range.offset + done, piece));
    stream.Add(piece.data(), n);
    done += n;
  }
  return stream.Finish();
}

// Hashes of ranges that are still to be read: by several threads, each of which
// takes the next one.
class Pass {
 public:
  Pass(absl::Span<const ModelFile> files, const std::vector<Range>& ranges,
       const HashOptions& options)
      : files_(files),
        ranges_(ranges),
        options_(options),
        hashes_(ranges.size()) {}

  absl::StatusOr<std::vector<Sha256Digest>> Run() {
    const int n_threads = static_cast<int>(std::min<size_t>(
        std::max(1, options_.n_threads), std::max<size_t>(1, ranges_.size())));
    std::vector<std::thread> threads;
    for (int i = 1; i < n_threads; ++i) {
      threads.emplace_back([this] { Work(); });
    }
    Work();
    for (std::thread& thread : threads) thread.join();
    absl::MutexLock lock(&mu_);
    RETURN_IF_ERROR(status_);
    return std::move(hashes_);
  }

 private:
  void Work() {
    std::vector<uint8_t> buffer;
    for (size_t i = next_++; i < ranges_.size(); i = next_++) {
      absl::StatusOr<Sha256Digest> hash =
          options_.cancelled && options_.cancelled()
              ? absl::CancelledError("nobody waits for the hashes any more")
              : HashRange(*files_[ranges_[i].file].file, ranges_[i], &buffer);
      if (hash.ok()) {
        hashes_[i] = *hash;  // Nobody else writes there.
        continue;
      }
      next_ = ranges_.size();
      absl::MutexLock lock(&mu_);
      status_.Update(hash.status());
    }
  }

  const absl::Span<const ModelFile> files_;
  const std::vector<Range>& ranges_;
  const HashOptions& options_;
  std::atomic<size_t> next_{0};
  std::vector<Sha256Digest> hashes_;
  absl::Mutex mu_;
  absl::Status status_ ABSL_GUARDED_BY(mu_);
};

struct Hashed {
  std::vector<Sha256Digest> hashes;  // of the ranges
  int64_t read_bytes = 0;
};

// Remembered hashes where there are, else read.
absl::StatusOr<Hashed> HashRanges(absl::Span<const ModelFile> files,
                                  const std::vector<Range>& ranges,
                                  const HashOptions& options) {
  const absl::Time begin = absl::Now();
  std::vector<FileIdentity> before(files.size());
  std::vector<RangeHashes> known(files.size());
  for (size_t i = 0; i < files.size(); ++i) {
    ASSIGN_OR_RETURN(before[i], files[i].file->Identity());
    if (options.memory != nullptr) {
      known[i] = options.memory->Recall(before[i]);
    }
  }
  Hashed hashed;
  hashed.hashes.resize(ranges.size());
  std::vector<Range> to_read;
  std::vector<size_t> places;
  for (size_t i = 0; i < ranges.size(); ++i) {
    const Range& range = ranges[i];
    const auto it = known[range.file].find({range.offset, range.bytes});
    if (it != known[range.file].end()) {
      hashed.hashes[i] = it->second;
      continue;
    }
    to_read.push_back(range);
    places.push_back(i);
    hashed.read_bytes += range.bytes;
  }
  ASSIGN_OR_RETURN(const std::vector<Sha256Digest> read,
                   Pass(files, to_read, options).Run());
  std::vector<RangeHashes> fresh(files.size());
  for (size_t i = 0; i < to_read.size(); ++i) {
    const Range& range = to_read[i];
    hashed.hashes[places[i]] = read[i];
    fresh[range.file][{range.offset, range.bytes}] = read[i];
  }
  for (size_t i = 0; i < files.size(); ++i) {
    if (fresh[i].empty()) continue;
    ASSIGN_OR_RETURN(const FileIdentity after, files[i].file->Identity());
    if (!(after == before[i])) {
      return absl::DataLossError(
          absl::StrCat("file ", files[i].name,
                       " of the model changed while it was hashed; do not "
                       "write to a model that is in use"));
    }
    if (options.memory != nullptr) {
      options.memory->Remember(after, fresh[i], begin);
    }
  }
  return hashed;
}

}  // namespace

absl::StatusOr<HashedModel> HashModel(absl::Span<const ModelFile> files,
                                      const HashOptions& options) {
  HashedModel model;
  std::vector<Range> ranges;
  for (size_t f = 0; f < files.size(); ++f) {
    ManifestFile file;
    file.name = files[f].name;
    file.bytes = static_cast<int64_t>(files[f].file->bytes().size());
    for (const ModelFile::Part& part : files[f].parts) {
      file.parts.push_back({part.name, part.offset, part.bytes, {}});
      for (int64_t begin = 0; begin < part.bytes;
           begin += kManifestBlockBytes) {
        ranges.push_back({static_cast<int>(f), part.offset + begin,
                          std::min(kManifestBlockBytes, part.bytes - begin)});
      }
    }
    model.manifest.files.push_back(std::move(file));
  }
  ASSIGN_OR_RETURN(const Hashed hashed, HashRanges(files, ranges, options));
  size_t next = 0;
  for (ManifestFile& file : model.manifest.files) {
    for (ManifestPart& part : file.parts) {
      for (int64_t begin = 0; begin < part.bytes;
           begin += kManifestBlockBytes) {
        part.blocks.push_back(hashed.hashes[next++]);
      }
    }
  }
  model.hashed_bytes = hashed.read_bytes;
  return model;
}

absl::StatusOr<CheckedBlocks> CheckModel(absl::Span<const ModelFile> files,
                                         const Manifest& manifest,
                                         absl::Span<const int> block_numbers,
                                         const HashOptions& options) {
  if (files.size() != manifest.files.size()) {
    return absl::FailedPreconditionError(
        absl::StrCat("the model here has ", files.size(),
                     " files; it should be ", manifest.files.size()));
  }
  for (size_t i = 0; i < files.size(); ++i) {
    const int64_t bytes = static_cast<int64_t>(files[i].file->bytes().size());
    if (bytes != manifest.files[i].bytes) {
      return absl::FailedPreconditionError(absl::StrCat(
          "file ", manifest.files[i].name, " of the model has ", bytes,
          " bytes here; it should be ", manifest.files[i].bytes));
    }
  }
  const std::vector<ManifestBlock> blocks = manifest.Blocks();
  std::vector<Range> ranges;
  for (const int number : block_numbers) {
    const ManifestBlock& block = blocks[number];
    ranges.push_back({block.file, block.offset, block.bytes});
  }
  ASSIGN_OR_RETURN(const Hashed hashed, HashRanges(files, ranges, options));
  CheckedBlocks checked;
  checked.hashed_bytes = hashed.read_bytes;
  for (size_t i = 0; i < ranges.size(); ++i) {
    if (hashed.hashes[i] != blocks[block_numbers[i]].hash) {
      checked.differing.push_back(block_numbers[i]);
    }
  }
  return checked;
}

}  // namespace tern
