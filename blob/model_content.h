#ifndef BLOB_MODEL_CONTENT_H_
#define BLOB_MODEL_CONTENT_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/span.h"
#include "blob/blob_store.h"
#include "blob/content_hash.h"
#include "model/manifest.h"
#include "model/model_file.h"
#include "model/model_source.h"

namespace tern {

// A model whose files are all here. Reads the files that were opened, even when
// their paths have come to name others. Immutable.
class ModelContent : public BlobContent {
 public:
  // REQUIRES: as many files of the same sizes as the manifest has.
  ModelContent(std::vector<ModelFile> files, Manifest manifest);

  const std::string& content_id() const { return content_id_; }
  const std::vector<ModelFile>& files() const { return files_; }

  const Manifest& manifest() const override { return manifest_; }
  const std::string& manifest_text() const override { return manifest_text_; }
  absl::Status Read(int file, int64_t offset,
                    absl::Span<uint8_t> out) const override;

 private:
  const std::vector<ModelFile> files_;
  const Manifest manifest_;
  const std::string manifest_text_;
  const std::string content_id_;
};

// Hashes the files of an opened model and logs how long that took. Errors as
// HashModel() and ModelSource::OpenFiles().
absl::StatusOr<std::shared_ptr<const ModelContent>> OpenModelContent(
    const ModelSource& source, const HashOptions& options);

// Contents that are all here, each as long as somebody else holds it.
// Thread-safe.
class ContentStore : public BlobStore {
 public:
  void Add(const std::shared_ptr<const ModelContent>& content)
      ABSL_LOCKS_EXCLUDED(mu_);

  std::shared_ptr<const BlobContent> Find(absl::string_view content_id) override
      ABSL_LOCKS_EXCLUDED(mu_);

 private:
  absl::Mutex mu_;
  std::vector<std::weak_ptr<const ModelContent>> contents_ ABSL_GUARDED_BY(mu_);
};

}  // namespace tern

#endif  // BLOB_MODEL_CONTENT_H_
