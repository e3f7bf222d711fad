#include "blob/model_content.h"

#include <algorithm>
#include <utility>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "util/logging.h"
#include "util/status_macros.h"

namespace tern {

ModelContent::ModelContent(std::vector<ModelFile> files, Manifest manifest)
    : files_(std::move(files)),
      manifest_(std::move(manifest)),
      manifest_text_(SerializeManifest(manifest_)),
      content_id_(ContentIdOf(manifest_text_)) {
  CHECK(files_.size() == manifest_.files.size());
}

absl::Status ModelContent::Read(int file, int64_t offset,
                                absl::Span<uint8_t> out) const {
  return files_[file].file->Read(offset, out);
}

absl::StatusOr<std::shared_ptr<const ModelContent>> OpenModelContent(
    const ModelSource& source, const HashOptions& options) {
  const absl::Time begin = absl::Now();
  ASSIGN_OR_RETURN(std::vector<ModelFile> files, source.OpenFiles());
  ASSIGN_OR_RETURN(HashedModel hashed, HashModel(files, options));
  auto content = std::make_shared<const ModelContent>(
      std::move(files), std::move(hashed.manifest));
  LOG(INFO) << "event=content_known content=" << content->content_id()
            << " bytes=" << content->manifest().part_bytes()
            << " hashed_bytes=" << hashed.hashed_bytes
            << " seconds=" << absl::ToDoubleSeconds(absl::Now() - begin)
            << " threads=" << options.n_threads;
  return content;
}

void ContentStore::Add(const std::shared_ptr<const ModelContent>& content) {
  absl::MutexLock lock(&mu_);
  contents_.erase(std::remove_if(contents_.begin(), contents_.end(),
                                 [](const auto& old) { return old.expired(); }),
                  contents_.end());
  contents_.push_back(content);
}

std::shared_ptr<const BlobContent> ContentStore::Find(
    absl::string_view content_id) {
  absl::MutexLock lock(&mu_);
  for (const std::weak_ptr<const ModelContent>& weak : contents_) {
    std::shared_ptr<const ModelContent> content = weak.lock();
    if (content != nullptr && content->content_id() == content_id) {
      return content;
    }
  }
  return nullptr;
}

}  // namespace tern
