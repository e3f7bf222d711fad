#ifndef BLOB_HASH_MEMORY_H_
#define BLOB_HASH_MEMORY_H_

#include <cstdint>
#include <map>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "model/mapped_file.h"
#include "util/sha256.h"

namespace tern {

// Hashes of ranges of a file, by (offset, bytes).
using RangeHashes = std::map<std::pair<int64_t, int64_t>, Sha256Digest>;

// Remembers hashes of files that have not changed since they were read: by
// device, inode, size and times of the file, so that a second start reads
// nothing. In memory and, when there is a folder for it, on disk, a small file
// for each file hashed. Memories of several processes may share the folder.
//
// What cannot be read or written on disk is forgotten, with a warning: hashing
// again is slow, not wrong. Thread-safe.
class HashMemory {
 public:
  // folder: made when it is missing; empty for none.
  explicit HashMemory(std::string folder);

  // What is known of a file of that identity. Nothing of one that has changed.
  RangeHashes Recall(const FileIdentity& file) ABSL_LOCKS_EXCLUDED(mu_);

  // Adds what was read of the file since `begin`, wall time. A file that
  // changed in the two seconds before is not remembered: times of files are
  // coarse, and it could change once more without showing it.
  void Remember(const FileIdentity& file, const RangeHashes& hashes,
                absl::Time begin) ABSL_LOCKS_EXCLUDED(mu_);

 private:
  using Key = std::pair<uint64_t, uint64_t>;  // device, inode
  struct Entry {
    FileIdentity file;
    RangeHashes hashes;
  };

  std::string PathOf(const FileIdentity& file) const;
  RangeHashes ReadFromDisk(const FileIdentity& file) const;
  void WriteToDisk(const Entry& entry) const;

  const std::string folder_;
  absl::Mutex mu_;
  std::map<Key, Entry> entries_ ABSL_GUARDED_BY(mu_);
};

}  // namespace tern

#endif  // BLOB_HASH_MEMORY_H_
