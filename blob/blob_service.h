#ifndef BLOB_BLOB_SERVICE_H_
#define BLOB_BLOB_SERVICE_H_

#include <cstdint>
#include <map>
#include <memory>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "blob/blob_store.h"
#include "grpcpp/server_context.h"
#include "grpcpp/support/server_callback.h"
#include "proto/tern/v1/blob.grpc.pb.h"
#include "util/clock.h"
#include "util/credentials.h"

namespace tern {

// Sends model files to workers, see blob.proto: on threads of its own, so that
// no disk and no slow reader holds up whatever else the process does, and no
// faster than it is allowed to. Each stream has one chunk in memory.
// Thread-safe.
class BlobServiceImpl final : public v1::BlobService::CallbackService {
 public:
  struct Options {
    // Whether bytes are sent; manifests are in any case.
    bool sends = true;
    // Bytes per second of all streams together; 0 is no limit.
    int64_t bandwidth = 0;
    // More streams at a time are refused with RESOURCE_EXHAUSTED.
    int streams_max = 64;
    int n_threads = 2;
  };

  // INVALID_ARGUMENT for senseless options, by the names of their flags.
  static absl::Status Check(const Options& options);

  // All must outlive the service; the service must outlive its server.
  BlobServiceImpl(const Options& options, BlobStore* store,
                  const Credentials* credentials, Clock* clock);
  // REQUIRES: no call is left.
  ~BlobServiceImpl() override;

  grpc::ServerUnaryReactor* GetManifest(
      grpc::CallbackServerContext* context,
      const v1::GetManifestRequest* request,
      v1::GetManifestResponse* response) override;

  grpc::ServerWriteReactor<v1::ReadBlobResponse>* ReadBlob(
      grpc::CallbackServerContext* context,
      const v1::ReadBlobRequest* request) override;

 private:
  class ReadCall;

  // Has a thread send the call's next chunk, of so many bytes, when its turn
  // comes.
  void Enqueue(ReadCall* call, int64_t bytes) ABSL_LOCKS_EXCLUDED(mu_);
  // Has a waiting call's turn come at once: it is to end.
  void Hurry(ReadCall* call) ABSL_LOCKS_EXCLUDED(mu_);
  // Whether there was room for one more stream.
  bool BeginStream() ABSL_LOCKS_EXCLUDED(mu_);
  void EndStream() ABSL_LOCKS_EXCLUDED(mu_);
  void SenderMain();

  const Options options_;
  BlobStore* const store_;
  const Credentials* const credentials_;
  Clock* const clock_;

  absl::Mutex mu_;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  int n_streams_ ABSL_GUARDED_BY(mu_) = 0;
  // Calls by the time of their turn. A call is here once at most.
  std::multimap<absl::Time, ReadCall*> turns_ ABSL_GUARDED_BY(mu_);
  // When the bandwidth is free again.
  absl::Time free_at_ ABSL_GUARDED_BY(mu_) = absl::InfinitePast();
  absl::CondVar changed_;

  std::vector<std::thread> threads_;
};

}  // namespace tern

#endif  // BLOB_BLOB_SERVICE_H_
