#ifndef WORKER_MODEL_CACHE_H_
#define WORKER_MODEL_CACHE_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/span.h"
#include "blob/blob_store.h"
#include "model/manifest.h"

namespace tern {

// A replica of a model's files, sparse: every byte lies where it lies in the
// original, and there are holes where nothing was fetched, so that whatever
// reads models reads it as it is. A small file beside them says which blocks
// have been checked against their hashes; no others are ever read.
//
// Several processes may use and fill one replica at a time: all write the same
// bytes. While this object lives, the replica stays. Thread-safe.
class CachedModel : public BlobContent {
 public:
  ~CachedModel() override;

  const std::string& content_id() const { return content_id_; }
  // For ModelSource::Open(), once every block of the files' headers is there.
  const std::string& path() const { return path_; }
  // Those of manifest(), by their numbers.
  const std::vector<ManifestBlock>& blocks() const { return blocks_; }

  bool Has(int block) const;
  // Whether the block was there before the machine was last started, so that it
  // may have been lost on its way to the disk: to be read and hashed again.
  bool MustRecheck(int block) const;

  // Reads a block back to be rechecked.
  absl::Status ReadUnchecked(int block, absl::Span<uint8_t> out) const;
  // Writes a block. RESOURCE_EXHAUSTED when the disk is full.
  // REQUIRES: bytes have the block's size and hash.
  absl::Status Store(int block, absl::Span<const uint8_t> bytes);
  // The block on disk was rechecked, and is good, or is to be fetched again.
  void SetRechecked(int block, bool is_good);

  const Manifest& manifest() const override { return manifest_; }
  const std::string& manifest_text() const override { return manifest_text_; }
  // Of blocks that it has.
  absl::Status Read(int file, int64_t offset,
                    absl::Span<uint8_t> out) const override;

 private:
  friend class ModelCache;
  CachedModel() = default;
  absl::Status Open(const std::string& folder, absl::string_view manifest_text);
  absl::Status OpenFiles(const std::string& folder);
  absl::Status OpenStates(const std::string& path, bool forget);
  uint8_t StateOf(int block) const;
  void SetState(int block, uint8_t state);

  std::string content_id_;
  std::string path_;
  std::string manifest_text_;
  Manifest manifest_;
  std::vector<ManifestBlock> blocks_;
  std::vector<int> fds_;       // of the files
  int lock_fd_ = -1;           // holds a shared lock
  uint8_t* states_ = nullptr;  // mapped and shared; see the .cc
  size_t states_bytes_ = 0;
};

// A folder of replicas with a limit on their size: those used longest ago go
// first, and never one that a process has open. Processes on one machine may
// share the folder. Thread-safe.
class ModelCache : public BlobStore {
 public:
  struct Options {
    std::string folder;  // made when it is missing
    int64_t bytes_max = int64_t{50} << 30;
  };

  // INVALID_ARGUMENT when the folder cannot be made or written to.
  static absl::StatusOr<std::unique_ptr<ModelCache>> Create(
      const Options& options);
  ~ModelCache() override;

  // The replica of a content, made (empty) when it is missing; that it is used
  // is remembered. manifest_text: of the content; not needed when the replica
  // exists, and then NOT_FOUND says that it does not.
  absl::StatusOr<std::shared_ptr<CachedModel>> Open(
      absl::string_view content_id, absl::string_view manifest_text)
      ABSL_LOCKS_EXCLUDED(mu_);

  // Makes room on the disk for blocks that the replica lacks, and removes other
  // replicas where that is needed. RESOURCE_EXHAUSTED says which limit is in
  // the way.
  absl::Status Reserve(CachedModel* model, absl::Span<const int> blocks)
      ABSL_LOCKS_EXCLUDED(mu_);

  std::shared_ptr<const BlobContent> Find(absl::string_view content_id) override
      ABSL_LOCKS_EXCLUDED(mu_);

 private:
  explicit ModelCache(const Options& options) : options_(options) {}
  std::string FolderOf(absl::string_view content_id) const;
  // Removes the replica used longest ago that nobody has open; false when there
  // is none.
  bool RemoveOldest();
  int64_t UsedBytes() const;

  const Options options_;
  int lock_fd_ = -1;  // locked by whoever opens, reserves or removes
  absl::Mutex mu_;
  std::map<std::string, std::weak_ptr<CachedModel>, std::less<>> open_
      ABSL_GUARDED_BY(mu_);
};

}  // namespace tern

#endif  // WORKER_MODEL_CACHE_H_
