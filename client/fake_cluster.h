#ifndef CLIENT_FAKE_CLUSTER_H_
#define CLIENT_FAKE_CLUSTER_H_

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "grpcpp/server.h"
#include "grpcpp/server_context.h"
#include "grpcpp/support/status.h"
#include "grpcpp/support/sync_stream.h"
#include "proto/tern/v1/cluster.grpc.pb.h"
#include "proto/tern/v1/cluster.pb.h"
#include "proto/tern/v1/inference.grpc.pb.h"
#include "proto/tern/v1/inference.pb.h"
#include "util/credentials.h"

namespace tern {

// A function that one thread may set while others call it. Thread-safe.
template <typename Signature>
class Handler {
 public:
  Handler& operator=(std::function<Signature> function)
      ABSL_LOCKS_EXCLUDED(mu_) {
    absl::MutexLock lock(&mu_);
    function_ = std::move(function);
    return *this;
  }

  std::function<Signature> get() const ABSL_LOCKS_EXCLUDED(mu_) {
    absl::MutexLock lock(&mu_);
    return function_;
  }

 private:
  mutable absl::Mutex mu_;
  std::function<Signature> function_ ABSL_GUARDED_BY(mu_);
};

// A coordinator for tests: listens on a port of loopback and does what its
// handlers say. A method without a handler is UNIMPLEMENTED. Handlers run in
// gRPC's threads, several at a time, and may be replaced at any time.
class FakeCluster {
 public:
  explicit FakeCluster(const CredentialOptions& options = {});
  ~FakeCluster();

  // "127.0.0.1:PORT".
  const std::string& address() const { return address_; }

  // What grpc.health.v1 says of `service`. "" and "liveness" serve from the
  // start.
  void SetServing(const std::string& service, bool serving);

  // Waits until `count` calls of generating methods have been made. False after
  // `timeout`.
  bool WaitForCalls(int count, absl::Duration timeout);

  // The requests of all generating methods so far.
  std::vector<v1::GenerateRequest> requests();

  using StreamWriter = grpc::ServerWriter<v1::StreamGenerateResponse>;
  using BatchStream = grpc::ServerReaderWriter<v1::BatchGenerateResponse,
                                               v1::BatchGenerateRequest>;
  template <typename Request, typename Response>
  using UnaryHandler = Handler<grpc::Status(const Request&, Response*)>;

  Handler<grpc::Status(grpc::ServerContext*, const v1::GenerateRequest&,
                       v1::GenerateResponse*)>
      on_generate;
  Handler<grpc::Status(grpc::ServerContext*, const v1::GenerateRequest&,
                       StreamWriter*)>
      on_stream;
  Handler<grpc::Status(grpc::ServerContext*, const v1::ResumeGenerateRequest&,
                       StreamWriter*)>
      on_resume;
  Handler<grpc::Status(grpc::ServerContext*, BatchStream*)> on_batch;
  UnaryHandler<v1::AbortRequest, v1::AbortResponse> on_abort;
  UnaryHandler<v1::TokenizeRequest, v1::TokenizeResponse> on_tokenize;
  UnaryHandler<v1::DetokenizeRequest, v1::DetokenizeResponse> on_detokenize;
  UnaryHandler<v1::ListModelsRequest, v1::ListModelsResponse> on_list_models;
  UnaryHandler<v1::GetModelRequest, v1::GetModelResponse> on_get_model;
  UnaryHandler<v1::ListWorkersRequest, v1::ListWorkersResponse> on_list_workers;

 private:
  class Inference;
  class Cluster;

  void Record(const v1::GenerateRequest& request) ABSL_LOCKS_EXCLUDED(mu_);

  std::string address_;
  std::unique_ptr<Credentials> credentials_;
  std::unique_ptr<Inference> inference_;
  std::unique_ptr<Cluster> cluster_;
  std::unique_ptr<grpc::Server> server_;

  absl::Mutex mu_;
  std::vector<v1::GenerateRequest> requests_ ABSL_GUARDED_BY(mu_);
};

// Streams `pieces` as an answer of one token each, as the contract has it:
// prompt_info, a message per piece, then a finish reason with usage.
grpc::Status StreamPieces(const v1::GenerateRequest& request,
                          const std::vector<std::string>& pieces,
                          FakeCluster::StreamWriter* writer);

}  // namespace tern

#endif  // CLIENT_FAKE_CLUSTER_H_
