#ifndef BLOB_CONTENT_HASH_H_
#define BLOB_CONTENT_HASH_H_

#include <cstdint>
#include <functional>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "blob/hash_memory.h"
#include "model/manifest.h"
#include "model/model_file.h"

namespace tern {

struct HashOptions {
  // Threads that read and hash; at least 1.
  int n_threads = 1;
  // Asked before anything is read, and told afterwards. May be null.
  HashMemory* memory = nullptr;
  // Asked now and then; once true, the result is CANCELLED. May be empty.
  std::function<bool()> cancelled;
};

// The manifest of a model's files.
struct HashedModel {
  Manifest manifest;
  int64_t hashed_bytes = 0;  // the rest was remembered
};

// Hashes every part of the files. DATA_LOSS when a file is cut short or changes
// meanwhile.
absl::StatusOr<HashedModel> HashModel(absl::Span<const ModelFile> files,
                                      const HashOptions& options);

// Which of some blocks hold other bytes than the manifest says.
struct CheckedBlocks {
  std::vector<int> differing;  // numbers of blocks, in order
  int64_t hashed_bytes = 0;
};

// Compares blocks of a model's files with a manifest. FAILED_PRECONDITION when
// the files do not have the manifest's number and sizes, so that they are no
// copy of it; DATA_LOSS as above.
absl::StatusOr<CheckedBlocks> CheckModel(absl::Span<const ModelFile> files,
                                         const Manifest& manifest,
                                         absl::Span<const int> block_numbers,
                                         const HashOptions& options);

}  // namespace tern

#endif  // BLOB_CONTENT_HASH_H_
