#ifndef WORKER_WEIGHT_SOURCE_H_
#define WORKER_WEIGHT_SOURCE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "blob/blob_store.h"
#include "model/manifest.h"

namespace tern {

// Somebody who may hold a model: another worker, the coordinator, a file. What
// it gives is not to be trusted. Thread-safe.
class WeightSource {
 public:
  virtual ~WeightSource() = default;

  // For logs: "worker 10.0.0.7:7601".
  virtual const std::string& name() const = 0;

  // The text of a content's manifest. NOT_FOUND when it is not held there.
  virtual absl::StatusOr<std::string> GetManifest(const std::string& content_id,
                                                  absl::Duration timeout) = 0;

  // The bytes of a block, all of them. NOT_FOUND when they are not held there,
  // RESOURCE_EXHAUSTED when the source is busy, DATA_LOSS when they came
  // damaged or too few.
  virtual absl::Status Read(const std::string& content_id,
                            const ManifestBlock& block, absl::Span<uint8_t> out,
                            absl::Duration timeout) = 0;

  // Whether it costs no network to ask: such a source is asked first, and for
  // every block, however many others were wrong.
  virtual bool is_own() const { return false; }

  // Ends calls under way, and refuses later ones, with CANCELLED.
  virtual void Cancel() = 0;
};

// The worker's own file, of which parts may be right.
class FileWeightSource : public WeightSource {
 public:
  FileWeightSource(std::string name, std::shared_ptr<const BlobContent> content)
      : name_(std::move(name)), content_(std::move(content)) {}

  const std::string& name() const override { return name_; }
  absl::StatusOr<std::string> GetManifest(const std::string& content_id,
                                          absl::Duration timeout) override {
    return absl::NotFoundError("a file has no manifest");
  }
  absl::Status Read(const std::string& content_id, const ManifestBlock& block,
                    absl::Span<uint8_t> out, absl::Duration timeout) override {
    return content_->Read(block.file, block.offset, out);
  }
  bool is_own() const override { return true; }
  void Cancel() override {}

 private:
  const std::string name_;
  const std::shared_ptr<const BlobContent> content_;
};

}  // namespace tern

#endif  // WORKER_WEIGHT_SOURCE_H_
