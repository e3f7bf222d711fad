#ifndef WORKER_FETCHING_HOST_H_
#define WORKER_FETCHING_HOST_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/optional.h"
#include "blob/blob_store.h"
#include "blob/hash_memory.h"
#include "blob/model_content.h"
#include "model/manifest.h"
#include "model/model_source.h"
#include "util/bounded_queue.h"
#include "worker/model_cache.h"
#include "worker/stage_backend.h"
#include "worker/stage_host.h"
#include "worker/stage_links.h"
#include "worker/weight_fetcher.h"
#include "worker/weight_source.h"

namespace tern {

// Sees to it, before a stage host loads a stage, that the weights are those of
// the coordinator: the worker's own file, where the tensors that the stage
// needs have the right hashes; else a replica in the cache, into which what is
// missing is fetched. A stage that does not fit the worker's memory is refused
// as soon as the model's header is there, before anything is hashed or fetched
// for it. A coordinator that names no content gets the worker's own
// file as it is.
//
// One stage host at a time, made anew for another model. Thread-safe.
class FetchingHost : public StageBackend, public BlobStore {
 public:
  struct Options {
    int n_hash_threads = 1;
    FetchOptions fetch;
  };
  using HostFactory = std::function<std::shared_ptr<StageHost>(
      const std::string& model_name, std::shared_ptr<const ModelSource>)>;
  // Connects to those who may have the weights, the addresses of the request
  // first and the coordinator last.
  using SourceFactory =
      std::function<std::vector<std::shared_ptr<WeightSource>>(
          const StageRequest& request)>;

  // Models by name.
  using Models = std::map<std::string, std::shared_ptr<const ModelSource>>;

  // own: of the worker's own files; may be empty.
  // cache: null when it keeps none; `cache` and `memory` outlive this.
  // REQUIRES: own or cache.
  FetchingHost(const Options& options, Models own, ModelCache* cache,
               HashMemory* memory, HostFactory make_host,
               SourceFactory make_sources);

  // Ends whatever runs, and waits for it.
  ~FetchingHost() override;

  absl::Status Load(const StageRequest& request,
                    std::shared_ptr<LoadObserver> observer) override
      ABSL_LOCKS_EXCLUDED(mu_);
  absl::StatusOr<Plans> plans() const override ABSL_LOCKS_EXCLUDED(mu_);
  absl::StatusOr<absl::optional<Inboxes>> InboxesOf(
      absl::string_view model, absl::string_view pipeline_id,
      int64_t epoch) const override ABSL_LOCKS_EXCLUDED(mu_);

  void OnCancelledWithoutPlans() override ABSL_LOCKS_EXCLUDED(mu_);

  // The worker's own files, once compared with a manifest, and whatever
  // the cache holds.
  std::shared_ptr<const BlobContent> Find(absl::string_view content_id) override
      ABSL_LOCKS_EXCLUDED(mu_);

  // As StageHost has them.
  void Shutdown(absl::Status status) ABSL_LOCKS_EXCLUDED(mu_);
  int64_t finished_step_count() const ABSL_LOCKS_EXCLUDED(mu_);
  int64_t progress() const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  struct Job {
    StageRequest request;
    std::shared_ptr<LoadObserver> observer;
  };
  struct Checked {
    std::shared_ptr<const ModelSource> source;
    int64_t fetched_bytes = 0;
  };

  // The worker's own file of that model; null when it has none, or another.
  std::shared_ptr<const ModelSource> OwnOf(const StageRequest& request) const;
  void Main();
  absl::Status Run(const Job& job);
  absl::StatusOr<Checked> CheckWeights(const Job& job);
  absl::StatusOr<std::string> FindManifest(
      const Job& job,
      const std::vector<std::shared_ptr<WeightSource>>& sources);
  // The worker's own file's blocks that differ, and the file as a content.
  absl::Status CheckOwnFile(const Job& job, const ModelSource& source,
                            const Manifest& manifest,
                            std::shared_ptr<const ModelContent>* own,
                            std::string* difference);
  absl::StatusOr<Checked> FetchReplica(
      const Job& job, const std::string& manifest_text,
      const std::vector<std::shared_ptr<WeightSource>>& sources);
  // The stage host of a model; ends the one of another, and with a null source
  // leaves none. Called by the constructor and the thread.
  std::shared_ptr<StageHost> HostOf(const std::string& model_name,
                                    std::shared_ptr<const ModelSource> source)
      ABSL_LOCKS_EXCLUDED(mu_);
  std::shared_ptr<StageHost> host() const ABSL_LOCKS_EXCLUDED(mu_);
  absl::Status StillWanted(const Job& job) const ABSL_LOCKS_EXCLUDED(mu_);

  const Options options_;
  const Models own_;
  ModelCache* const cache_;
  HashMemory* const memory_;
  const HostFactory make_host_;
  const SourceFactory make_sources_;
  BoundedQueue<Job> jobs_;

  // Of the thread: the replica in use, which the cache must keep.
  std::shared_ptr<CachedModel> replica_;
  std::shared_ptr<const ModelSource> replica_source_;

  mutable absl::Mutex mu_;
  absl::Status shutdown_ ABSL_GUARDED_BY(mu_);
  int64_t epoch_ ABSL_GUARDED_BY(mu_) = 0;  // newest accepted
  std::shared_ptr<StageHost> host_ ABSL_GUARDED_BY(mu_);
  std::string host_model_ ABSL_GUARDED_BY(mu_);
  std::shared_ptr<const ModelSource> host_source_ ABSL_GUARDED_BY(mu_);
  // Of hosts that are gone.
  int64_t past_steps_ ABSL_GUARDED_BY(mu_) = 0;
  int64_t past_progress_ ABSL_GUARDED_BY(mu_) = 0;
  // Of own files, once they were compared with a manifest.
  std::vector<std::shared_ptr<const ModelContent>> own_contents_
      ABSL_GUARDED_BY(mu_);

  std::thread thread_;
};

}  // namespace tern

#endif  // WORKER_FETCHING_HOST_H_
