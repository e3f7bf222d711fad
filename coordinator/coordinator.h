#ifndef COORDINATOR_COORDINATOR_H_
#define COORDINATOR_COORDINATOR_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "blob/blob_service.h"
#include "blob/model_content.h"
#include "coordinator/journal.h"
#include "coordinator/model_instance.h"
#include "coordinator/model_registry.h"
#include "coordinator/operator_store.h"
#include "coordinator/publisher.h"
#include "coordinator/recut.h"
#include "coordinator/resumable_requests.h"
#include "coordinator/worker_router.h"
#include "grpcpp/server.h"
#include "grpcpp/server_builder.h"
#include "util/credentials.h"

namespace tern {

// A coordinator: engines, one for each model, behind a gRPC port that serves
// InferenceService, ClusterService and AdminService, with health ("" and
// "liveness" when it is up, "readiness" when a pipeline serves) and reflection.
//
// Thread-safe.
class Coordinator {
 public:
  struct Options {
    std::string listen = "127.0.0.1:7600";  // port 0 picks one

    // Served from the start. None: `models_dir` is set.
    std::vector<ModelSpec> models;
    // Where operators' calls find further models. Empty: they load none.
    std::string models_dir;
    // What those models get where a call says nothing.
    ModelSpec defaults;

    int max_sequences = 64;
    int max_queued_requests = 1024;
    int64_t max_queued_tokens = 4 << 20;
    int max_step_tokens = 512;
    double max_step_stretch = 2;
    int max_draft_tokens = 8;
    bool always_drafts = false;
    bool prefix_cache = true;
    // "never", "auto" or "always"; see BoundaryKeeping.
    std::string keep_boundary = "auto";
    absl::Duration lease = absl::Seconds(10);
    RecutOptions recut;
    absl::Duration hang_timeout = absl::Seconds(2);
    absl::Duration unavailable_after = absl::Seconds(30);
    bool allow_numerics_change = false;

    // Folder of the journal, in which requests with a resume window outlive
    // this process. Empty: none.
    std::string journal_dir;
    std::string journal_sync = "none";  // or "batch"
    int64_t journal_max_bytes = int64_t{1} << 30;

    // Whether the models' files are hashed before the port opens, so that
    // workers can check theirs against them and fetch what they lack.
    bool content_hash = true;
    // Where hashes are remembered; empty for nowhere.
    std::string cache_dir;
    BlobServiceImpl::Options blobs;

    CredentialOptions credentials;
  };

  // Reads the models (see ModelInstance::Open()) and opens the port.
  // INVALID_ARGUMENT for options and files that make no sense, NOT_FOUND
  // without a file, UNAVAILABLE when the port cannot be had,
  // FAILED_PRECONDITION for plaintext beyond loopback, DATA_LOSS for a journal
  // that is damaged.
  static absl::StatusOr<std::unique_ptr<Coordinator>> Create(
      const Options& options);

  // Shutdown().
  ~Coordinator();

  // The port it listens on.
  int port() const { return port_; }

  // Ends every stream with UNAVAILABLE, then the server. May be called twice.
  void Shutdown() ABSL_LOCKS_EXCLUDED(mu_);

 private:
  struct Services;

  Coordinator() = default;
  absl::Status Start(const Options& options) ABSL_LOCKS_EXCLUDED(mu_);
  // Opens a model with an engine that tells this coordinator of its readiness.
  absl::StatusOr<std::shared_ptr<ModelInstance>> OpenModel(
      const Options& options, const ModelSpec& spec)
      ABSL_LOCKS_EXCLUDED(health_mu_);
  // Gives the engines what their workers still hold, or writes it down for the
  // next coordinator.
  void RestoreKept();
  void WriteKept();
  // One more model has a pipeline that serves, or one less.
  void AddReady(int change) ABSL_LOCKS_EXCLUDED(health_mu_);

  // Set by Start(), then constant. What comes later uses what comes before.
  std::unique_ptr<Credentials> credentials_;
  std::unique_ptr<Journal> journal_;          // may be null
  std::unique_ptr<OperatorStore> operators_;  // likewise
  std::string journal_dir_;                   // likewise; may be empty
  ContentStore contents_;
  std::unique_ptr<Publisher> publisher_;
  std::shared_ptr<std::atomic<int64_t>> last_epoch_;
  std::unique_ptr<ModelRegistry> models_;
  std::unique_ptr<WorkerRouter> workers_;
  std::unique_ptr<ResumableRequests> resumables_;
  std::unique_ptr<Services> services_;
  int port_ = 0;

  absl::Mutex mu_;
  std::unique_ptr<grpc::Server> server_ ABSL_GUARDED_BY(mu_);

  absl::Mutex health_mu_;
  int n_ready_ ABSL_GUARDED_BY(health_mu_) = 0;  // models
  grpc::HealthCheckServiceInterface* health_ ABSL_GUARDED_BY(health_mu_) =
      nullptr;
};

}  // namespace tern

#endif  // COORDINATOR_COORDINATOR_H_
