#ifndef COORDINATOR_COORDINATOR_H_
#define COORDINATOR_COORDINATOR_H_

#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "blob/blob_service.h"
#include "blob/model_content.h"
#include "coordinator/engine.h"
#include "coordinator/publisher.h"
#include "coordinator/request_validation.h"
#include "grpcpp/server.h"
#include "grpcpp/server_builder.h"
#include "model/chat_encoder.h"
#include "model/model_source.h"
#include "model/tokenizer.h"
#include "util/clock.h"
#include "util/credentials.h"

namespace tern {

// A coordinator: an engine behind a gRPC port that serves InferenceService and
// ClusterService, with health ("" and "liveness" when it is up, "readiness"
// when a pipeline serves) and reflection.
//
// Thread-safe.
class Coordinator {
 public:
  struct Options {
    std::string listen = "127.0.0.1:7600";  // port 0 picks one

    // As ModelSource::Open() takes it. Headers and tokenizer are read; weights
    // are hashed and sent, not looked into.
    std::string model_path;
    // Empty: that of ModelNameOf(model_path).
    std::string model_name;
    // File with a chat template to take in place of the model's. Empty: the
    // model's own, if it has one.
    std::string chat_template_path;

    int n_stages = 1;
    std::string head_mode = "int8";  // or "stored"
    int64_t kv_cache_tokens = 0;     // 0 decides, see PlacementOptions
    int max_sequences = 64;
    int max_queued_requests = 1024;
    int64_t max_queued_tokens = 4 << 20;
    int max_step_tokens = 512;
    double max_step_stretch = 2;
    int max_draft_tokens = 8;
    bool always_drafts = false;
    bool prefix_cache = true;
    absl::Duration lease = absl::Seconds(10);
    absl::Duration hang_timeout = absl::Seconds(2);
    absl::Duration unavailable_after = absl::Seconds(30);

    // Whether the model's files are hashed before the port opens, so that
    // workers can check theirs against them and fetch what they lack.
    bool content_hash = true;
    // Where hashes are remembered; empty for nowhere.
    std::string cache_dir;
    BlobServiceImpl::Options blobs;

    CredentialOptions credentials;
  };

  // Reads the model and opens the port. A model without a chat template, or
  // with one that cannot be read, is served for plain prompts alone.
  // INVALID_ARGUMENT for options and files that make no sense, NOT_FOUND
  // without the file, UNAVAILABLE when the port cannot be had,
  // FAILED_PRECONDITION for plaintext beyond loopback.
  static absl::StatusOr<std::unique_ptr<Coordinator>> Create(
      const Options& options);

  // Shutdown().
  ~Coordinator();

  // The port it listens on.
  int port() const { return port_; }

  const std::string& model_name() const { return model_.name; }

  // Ends every stream with UNAVAILABLE, then the server. May be called twice.
  void Shutdown() ABSL_LOCKS_EXCLUDED(mu_);

 private:
  struct Services;

  Coordinator() = default;
  absl::Status Start(const Options& options) ABSL_LOCKS_EXCLUDED(mu_);
  absl::Status LoadChat(const Options& options, const ModelSource& source);
  void SetReadiness(bool ready) ABSL_LOCKS_EXCLUDED(health_mu_);

  // Set by Start(), then constant. What comes later uses what comes before.
  std::unique_ptr<Credentials> credentials_;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::unique_ptr<ChatEncoder> chat_;
  ServedModel model_;
  ContentStore contents_;
  std::unique_ptr<Publisher> publisher_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<Services> services_;
  int port_ = 0;

  absl::Mutex mu_;
  std::unique_ptr<grpc::Server> server_ ABSL_GUARDED_BY(mu_);

  absl::Mutex health_mu_;
  bool ready_ ABSL_GUARDED_BY(health_mu_) = false;
  grpc::HealthCheckServiceInterface* health_ ABSL_GUARDED_BY(health_mu_) =
      nullptr;
};

}  // namespace tern

#endif  // COORDINATOR_COORDINATOR_H_
