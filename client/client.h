#ifndef CLIENT_CLIENT_H_
#define CLIENT_CLIENT_H_

#include <atomic>
#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/cancellation.h"
#include "grpcpp/channel.h"
#include "grpcpp/client_context.h"
#include "proto/tern/v1/admin.grpc.pb.h"
#include "proto/tern/v1/admin.pb.h"
#include "proto/tern/v1/cluster.grpc.pb.h"
#include "proto/tern/v1/cluster.pb.h"
#include "proto/tern/v1/inference.grpc.pb.h"
#include "proto/tern/v1/inference.pb.h"
#include "util/clock.h"
#include "util/credentials.h"

namespace tern {

struct ClientOptions {
  // "host:port" of a coordinator, or of several, separated by commas, of which
  // one serves at a time: when it does not answer, the next one is tried.
  std::string server = "127.0.0.1:7600";

  CredentialOptions credentials;

  // Name that the server's certificate must carry; the host in `server` when
  // empty. Without TLS it means nothing.
  std::string peer_name = kCoordinatorName;

  // Time for a call with all its retries, where the call says nothing else.
  absl::Duration default_deadline = absl::InfiniteDuration();

  // Most times to try a call that ends with UNAVAILABLE, at least 1; as many
  // for each server.
  int max_attempts = 4;

  // Pause before the second attempt; it doubles with each later one, up to
  // `backoff_max`, and each is shortened by a random share of up to a half.
  absl::Duration backoff_first = absl::Milliseconds(100);
  absl::Duration backoff_max = absl::Seconds(2);

  // For tests. `sleep` waits, and returns early when the cancellation (may be
  // null) is cancelled; `random` draws from [0, 1). Not set: the real ones.
  Clock* clock = nullptr;
  std::function<void(absl::Duration, const Cancellation*)> sleep;
  std::function<double()> random;
};

struct CallOptions {
  // Time for the call with all its retries; DEADLINE_EXCEEDED after that.
  // Zero: ClientOptions::default_deadline.
  absl::Duration deadline = absl::ZeroDuration();

  // Ends the call with CANCELLED. May be null.
  Cancellation* cancellation = nullptr;

  // For StreamGenerate(): above zero, and at most 10 minutes, the stream is
  // asked for so that it can be resumed, and a connection that breaks is
  // resumed, as often as it takes, for as long after it broke. Then a call that
  // is cancelled also aborts its request.
  absl::Duration resume_window = absl::ZeroDuration();

  // Called before each further attempt with why the last one ended and how long
  // the pause will be, in the thread that makes the call. May be empty.
  std::function<void(const absl::Status& status, absl::Duration pause)>
      on_retry;
};

// A connection to a Tern cluster. Requests and answers are the messages of
// proto/tern/v1, whose comments say their fields, limits and statuses.
//
// A call that ends with UNAVAILABLE is tried again, with exponential backoff
// and at most `max_attempts` times, as long as the caller has seen nothing of
// its answer. Every other status is final. A request with text that is not
// UTF-8 is not sent: INVALID_ARGUMENT with the name of the field; in a batch it
// ends the call. Thread-safe; calls wait for their answer.
class Client {
 public:
  // INVALID_ARGUMENT, NOT_FOUND and FAILED_PRECONDITION as Credentials has
  // them; a server that does not answer is seen by the first call only.
  static absl::StatusOr<std::unique_ptr<Client>> Create(ClientOptions options);

  // Generates the whole answer. A request without `request_id` gets one, a new
  // one for each attempt; a `request_id` of the caller's own is kept, so that a
  // retry may find it ALREADY_EXISTS while the lost attempt is cleared away.
  absl::StatusOr<v1::GenerateResponse> Generate(
      v1::GenerateRequest request, const CallOptions& options = {});

  // Generates an answer and calls `on_message` with each message of the stream
  // as it comes; returning false ends the call with CANCELLED. `prompt_info`
  // comes once per attempt, the last one counts. Once a message with text,
  // tokens, their log-probabilities or a finish reason was passed on, a broken
  // stream is not retried; with CallOptions::resume_window it is resumed, and
  // `on_message` is called as if it had never broken. NOT_FOUND then says that
  // the cluster does not have the request any more.
  absl::Status StreamGenerate(
      v1::GenerateRequest request,
      absl::FunctionRef<bool(const v1::StreamGenerateResponse&)> on_message,
      const CallOptions& options = {});

  // Generates answers for many prompts. Calls `next` for one prompt after the
  // other, in a thread of its own and only when the cluster has room for
  // another, until it returns false; calls `on_result` in this thread with each
  // prompt's result once, in any order and under the `index` that `next` gave
  // it; returning false ends the call with CANCELLED. Keeps the prompts that
  // are sent and not answered, no others.
  //
  // A result is an answer, or an error that would be the same next time. Where
  // the cluster could not answer just then (UNAVAILABLE, ABORTED, CANCELLED,
  // DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED for a full queue) no result is passed
  // on: what is in progress ends, and the prompt is sent again with the next
  // attempt, as are all without a result when the stream breaks. The attempts
  // are counted from the last result on. After an error, returns only once a
  // call of `next` in progress has returned.
  absl::Status BatchGenerate(
      absl::FunctionRef<bool(v1::BatchGenerateRequest*)> next,
      absl::FunctionRef<bool(const v1::BatchGenerateResponse&)> on_result,
      const CallOptions& options = {});

  absl::Status Abort(const std::string& request_id,
                     const CallOptions& options = {});
  absl::StatusOr<v1::TokenizeResponse> Tokenize(
      const v1::TokenizeRequest& request, const CallOptions& options = {});
  absl::StatusOr<v1::DetokenizeResponse> Detokenize(
      const v1::DetokenizeRequest& request, const CallOptions& options = {});
  absl::StatusOr<v1::ListModelsResponse> ListModels(
      const CallOptions& options = {});
  absl::StatusOr<v1::GetModelResponse> GetModel(
      const v1::GetModelRequest& request, const CallOptions& options = {});
  absl::StatusOr<v1::ListWorkersResponse> ListWorkers(
      const CallOptions& options = {});

  // For operators: proto/tern/v1/admin.proto. A load or unload that a broken
  // connection made be tried again may find that it was done: ALREADY_EXISTS,
  // NOT_FOUND.
  absl::StatusOr<v1::LoadModelResponse> LoadModel(
      const v1::LoadModelRequest& request, const CallOptions& options = {});
  absl::StatusOr<v1::UnloadModelResponse> UnloadModel(
      const v1::UnloadModelRequest& request, const CallOptions& options = {});
  absl::Status CordonWorker(const v1::CordonWorkerRequest& request,
                            const CallOptions& options = {});

  // Whether the server's health service (grpc.health.v1) calls `service`
  // serving. NOT_FOUND when it does not know it.
  absl::StatusOr<bool> IsServing(const std::string& service,
                                 const CallOptions& options = {});

 private:
  struct Attempt;
  struct Server {
    std::shared_ptr<grpc::Channel> channel;
    std::unique_ptr<v1::InferenceService::Stub> inference;
    std::unique_ptr<v1::ClusterService::Stub> cluster;
    std::unique_ptr<v1::AdminService::Stub> admin;
  };

  Client(ClientOptions options, std::vector<Server> servers);

  absl::Status ResumingStream(
      v1::StreamGenerateRequest request,
      absl::FunctionRef<bool(const v1::StreamGenerateResponse&)> on_message,
      const CallOptions& options);

  // Runs `attempt` until it succeeds, may not be retried, or the limits are
  // reached. Attempts are numbered from 1.
  absl::Status WithRetries(const CallOptions& options,
                           absl::FunctionRef<void(Attempt&)> attempt);

  template <typename Request, typename Response, typename Method>
  absl::StatusOr<Response> Unary(const Request& request,
                                 const CallOptions& options, Method method);

  absl::Duration Backoff(int failed_attempts) const;

  const ClientOptions options_;
  const std::vector<Server> servers_;
  std::atomic<size_t> n_moves_{0};  // from one server to the next
};

}  // namespace tern

#endif  // CLIENT_CLIENT_H_
