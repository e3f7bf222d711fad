#ifndef COORDINATOR_MODEL_INSTANCE_H_
#define COORDINATOR_MODEL_INSTANCE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "blob/model_content.h"
#include "coordinator/engine.h"
#include "coordinator/pipeline.h"
#include "coordinator/request_validation.h"
#include "model/chat_encoder.h"
#include "model/model_source.h"
#include "model/tokenizer.h"
#include "util/clock.h"

namespace tern {

// What is decided for each model by itself.
struct ModelSpec {
  // As ModelSource::Open() takes it. Headers and tokenizer are read, weights
  // are not.
  std::string path;
  // Empty: that of ModelNameOf(path).
  std::string name;
  // File with a chat template to take in place of the model's. Empty: the
  // model's own, if it has one.
  std::string chat_template_path;

  // Stages of a pipeline, or 0, and where they are cut; see PlacementOptions.
  int n_stages = 0;
  std::vector<int> layer_cuts;
  std::string head_mode = "int8";  // or "stored"
  int64_t kv_cache_tokens = 0;     // 0 decides, see PlacementOptions
};

// A model that the cluster serves: what gRPC threads need of it, and an engine
// of its own, whose workers serve no other. Thread-safe.
class ModelInstance {
 public:
  // Reads the model and starts its engine, with `common` where the spec says
  // nothing. A model without a chat template, or with one that cannot be read,
  // is served for plain prompts alone. May take a second.
  //
  // hash: names what the model's files hold, so that workers can check theirs
  //       against it and fetch what they lack; not set, or null from it, leaves
  //       that out.
  //
  // INVALID_ARGUMENT for specs and files that make no sense, NOT_FOUND without
  // the file, and as `hash` says.
  using Hash =
      std::function<absl::StatusOr<std::shared_ptr<const ModelContent>>(
          const ModelSource&)>;
  static absl::StatusOr<std::shared_ptr<ModelInstance>> Open(
      const ModelSpec& spec, const Hash& hash, Engine::Options common,
      PipelineFactory factory, Clock* clock);

  const std::string& name() const { return served_.name; }
  const ServedModel& served() const { return served_; }
  // Null where it was not hashed.
  const std::shared_ptr<const ModelContent>& content() const {
    return content_;
  }
  // See docs/wire_protocol.md.
  uint64_t fingerprint() const { return fingerprint_; }
  Engine* engine() { return engine_.get(); }
  // Of each pipeline; 0 where the workers decide.
  int n_stages() const { return n_stages_; }

 private:
  ModelInstance() = default;
  absl::Status Read(const ModelSpec& spec, const Hash& hash,
                    Engine::Options* engine);
  absl::Status LoadChat(const ModelSpec& spec, const ModelSource& source);

  // Set by Open(), then constant. What comes later uses what comes before.
  std::unique_ptr<Tokenizer> tokenizer_;
  std::unique_ptr<ChatEncoder> chat_;
  ServedModel served_;
  uint64_t fingerprint_ = 0;
  std::shared_ptr<const ModelContent> content_;
  int n_stages_ = 0;
  std::unique_ptr<Engine> engine_;
};

// Tokens per KV block of this release's workers, which is checked when they
// load.
inline constexpr int kKvBlockSize = 16;

}  // namespace tern

#endif  // COORDINATOR_MODEL_INSTANCE_H_
