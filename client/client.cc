#include "client/client.h"

#include <algorithm>
#include <cstdint>
#include <deque>
#include <map>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/random/random.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "absl/types/optional.h"
#include "client/answer_progress.h"
#include "client/text_check.h"
#include "google/protobuf/duration.pb.h"
#include "google/protobuf/wrappers.pb.h"
#include "grpcpp/generic/generic_stub.h"
#include "util/grpc_status.h"
#include "util/status_macros.h"

namespace tern {
namespace {

// How long a cancelled stream may take to tell the cluster so.
constexpr absl::Duration kAbortPatience = absl::Seconds(1);

google::protobuf::Duration ToProto(absl::Duration duration) {
  google::protobuf::Duration proto;
  proto.set_seconds(absl::IDivDuration(duration, absl::Seconds(1), &duration));
  proto.set_nanos(static_cast<int32_t>(absl::ToInt64Nanoseconds(duration)));
  return proto;
}

void Sleep(absl::Duration duration, const Cancellation* cancellation) {
  if (cancellation != nullptr) {
    cancellation->WaitFor(duration);
  } else {
    absl::SleepFor(duration);
  }
}

double DrawRandom() {
  absl::BitGen random;
  return absl::Uniform(random, 0.0, 1.0);
}

// A name that no other request has, or nothing where the caller brought one.
std::string MakeUpRequestId(const v1::GenerateRequest& request) {
  if (!request.request_id().empty()) return "";
  absl::BitGen random;
  return absl::StrCat(
      "client-", absl::Hex(absl::Uniform<uint64_t>(random), absl::kZeroPad16));
}

void SetRequestId(const std::string& made_up, int attempt,
                  v1::GenerateRequest* request) {
  if (!made_up.empty()) {
    request->set_request_id(absl::StrCat(made_up, "-", attempt));
  }
}

bool SaysOnlyWhatWasAdmitted(const v1::StreamGenerateResponse& message) {
  return !message.has_delta() && !message.has_usage() &&
         message.prompt_logprobs().empty();
}

// Whether the same prompt may be answered next time.
bool MayPass(const v1::RequestError& error) {
  switch (static_cast<absl::StatusCode>(error.code())) {
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kAborted:
    case absl::StatusCode::kCancelled:
    case absl::StatusCode::kDeadlineExceeded:
      return true;
    case absl::StatusCode::kResourceExhausted:
      return error.has_retry_delay();
    default:
      return false;
  }
}

// The status of a batch that is worth another attempt: UNAVAILABLE, unless its
// code tells the caller more.
absl::Status Passing(absl::StatusCode code, absl::string_view message) {
  if (code == absl::StatusCode::kUnavailable ||
      code == absl::StatusCode::kResourceExhausted ||
      code == absl::StatusCode::kDeadlineExceeded) {
    return absl::Status(code, message);
  }
  return absl::UnavailableError(
      absl::StrCat(absl::StatusCodeToString(code), ": ", message));
}

// How gRPC reports connections and servers that go away in the middle of a
// stream. That the caller's own time is over is no such thing.
bool BrokeOff(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsAborted(status) ||
         absl::IsCancelled(status) || absl::IsUnknown(status) ||
         absl::IsResourceExhausted(status);
}

// The prompts of a batch that have no result yet, each by its number in the
// stream: within one they are numbered from 0 without gaps, which the cluster
// remembers at no cost. Thread-safe.
class Unanswered {
 public:
  // Takes the next prompt to send: one of an earlier stream first, then
  // whatever `next` gives. False when there is none, or after Pause().
  bool Next(absl::FunctionRef<bool(v1::BatchGenerateRequest*)> next,
            v1::BatchGenerateRequest* request) ABSL_LOCKS_EXCLUDED(mu_) {
    {
      absl::MutexLock lock(&mu_);
      if (paused_) return false;
      if (!resend_.empty()) {
        *request = std::move(resend_.front());
        resend_.pop_front();
        Number(request);
        return true;
      }
      if (no_more_) return false;
    }
    request->Clear();
    const bool has_more = next(request);
    absl::MutexLock lock(&mu_);
    if (has_more) {
      Number(request);
    } else {
      no_more_ = true;
    }
    return has_more;
  }

  // A result came: gives it the caller's index. False when nothing of this
  // number is waited for.
  bool Answered(v1::BatchGenerateResponse* result) ABSL_LOCKS_EXCLUDED(mu_) {
    absl::MutexLock lock(&mu_);
    const auto it = sent_.find(result->index());
    if (it == sent_.end()) return false;
    result->set_index(it->second.index());
    sent_.erase(it);
    return true;
  }

  // No further prompt is to be sent in this stream.
  void Pause() ABSL_LOCKS_EXCLUDED(mu_) {
    absl::MutexLock lock(&mu_);
    paused_ = true;
  }

  // A new stream begins: what has no result from earlier ones comes first, in
  // the order in which it was sent.
  void Restart() ABSL_LOCKS_EXCLUDED(mu_) {
    absl::MutexLock lock(&mu_);
    paused_ = false;
    n_numbered_ = 0;
    for (auto it = sent_.rbegin(); it != sent_.rend(); ++it) {
      resend_.push_front(std::move(it->second));
    }
    sent_.clear();
  }

  size_t size() const ABSL_LOCKS_EXCLUDED(mu_) {
    absl::MutexLock lock(&mu_);
    return sent_.size() + resend_.size();
  }

 private:
  // Keeps what is sent under the caller's index and sends it under its number.
  void Number(v1::BatchGenerateRequest* request)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    sent_.emplace(n_numbered_, *request);
    request->set_index(n_numbered_++);
  }

  mutable absl::Mutex mu_;
  std::deque<v1::BatchGenerateRequest> resend_ ABSL_GUARDED_BY(mu_);
  std::map<int64_t, v1::BatchGenerateRequest> sent_ ABSL_GUARDED_BY(mu_);
  int64_t n_numbered_ ABSL_GUARDED_BY(mu_) = 0;
  bool paused_ ABSL_GUARDED_BY(mu_) = false;
  bool no_more_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace

// One try of a call.
struct Client::Attempt {
  grpc::ClientContext context;
  const Server* server = nullptr;
  int number = 1;
  absl::Status status;
  // Cleared once the caller has seen something of the answer.
  bool may_retry = true;
  // Whether another attempt may end better; UNAVAILABLE always says so.
  bool is_passing = false;
  // The cluster's own word on how long to wait before that.
  absl::Duration least_pause = absl::ZeroDuration();
  // Set when the attempts so far were not in vain: they no longer count.
  bool made_progress = false;
  // Set where it is time and not their number that ends the attempts.
  absl::optional<absl::Time> retry_until;
};

absl::StatusOr<std::unique_ptr<Client>> Client::Create(ClientOptions options) {
  if (options.max_attempts < 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        "max_attempts is ", options.max_attempts, "; it must be at least 1"));
  }
  if (options.clock == nullptr) options.clock = Clock::System();
  if (!options.sleep) options.sleep = Sleep;
  if (!options.random) options.random = DrawRandom;
  ASSIGN_OR_RETURN(const std::unique_ptr<Credentials> credentials,
                   Credentials::Create(options.credentials));
  std::vector<Server> servers;
  for (const absl::string_view address : absl::StrSplit(options.server, ',')) {
    Server& server = servers.emplace_back();
    ASSIGN_OR_RETURN(server.channel,
                     credentials->CreateChannel(
                         std::string(absl::StripAsciiWhitespace(address)),
                         options.peer_name));
    server.inference = v1::InferenceService::NewStub(server.channel);
    server.cluster = v1::ClusterService::NewStub(server.channel);
    server.admin = v1::AdminService::NewStub(server.channel);
  }
  return std::unique_ptr<Client>(
      new Client(std::move(options), std::move(servers)));
}

Client::Client(ClientOptions options, std::vector<Server> servers)
    : options_(std::move(options)), servers_(std::move(servers)) {}

absl::Duration Client::Backoff(int failed_attempts) const {
  absl::Duration pause = options_.backoff_first;
  for (int i = 1; i < failed_attempts && pause < options_.backoff_max; ++i) {
    pause *= 2;
  }
  return std::min(pause, options_.backoff_max) * (1 - 0.5 * options_.random());
}

absl::Status Client::WithRetries(const CallOptions& options,
                                 absl::FunctionRef<void(Attempt&)> attempt) {
  const absl::Duration patience = options.deadline > absl::ZeroDuration()
                                      ? options.deadline
                                      : options_.default_deadline;
  const absl::Time deadline = options_.clock->Now() + patience;
  const int n_servers = static_cast<int>(servers_.size());
  int counted = 0;
  for (int number = 1;; ++number) {
    if (options.cancellation != nullptr && options.cancellation->cancelled()) {
      return absl::CancelledError("cancelled by the caller");
    }
    Attempt a;
    a.number = number;
    size_t n_moves = n_moves_;
    a.server = &servers_[n_moves % servers_.size()];
    if (patience != absl::InfiniteDuration()) {
      a.context.set_deadline(
          absl::ToChronoTime(absl::Now() + (deadline - options_.clock->Now())));
    }
    {
      Cancellation::Scope scope(options.cancellation, &a.context);
      attempt(a);
    }
    if (a.made_progress) counted = 0;
    ++counted;
    if (!(absl::IsUnavailable(a.status) || a.is_passing) || !a.may_retry) {
      return a.status;
    }
    // To the next server, unless another call has gone there already.
    n_moves_.compare_exchange_strong(n_moves, n_moves + 1);
    const absl::Duration pause =
        std::max(Backoff((counted + n_servers - 1) / n_servers), a.least_pause);
    const absl::Time next = options_.clock->Now() + pause;
    const bool is_enough = a.retry_until.has_value()
                               ? next >= *a.retry_until
                               : counted >= options_.max_attempts * n_servers;
    if (is_enough || next >= deadline) {
      return absl::Status(
          a.status.code(),
          absl::StrCat(a.status.message(), " (after ", counted,
                       counted == 1 ? " attempt)" : " attempts)"));
    }
    if (options.on_retry) options.on_retry(a.status, pause);
    options_.sleep(pause, options.cancellation);
  }
}

template <typename Request, typename Response, typename Method>
absl::StatusOr<Response> Client::Unary(const Request& request,
                                       const CallOptions& options,
                                       Method method) {
  RETURN_IF_ERROR(CheckText(request));
  Response response;
  RETURN_IF_ERROR(WithRetries(options, [&](Attempt& a) {
    a.status =
        FromGrpcStatus(method(*a.server, &a.context, request, &response));
  }));
  return response;
}

absl::StatusOr<v1::GenerateResponse> Client::Generate(
    v1::GenerateRequest request, const CallOptions& options) {
  RETURN_IF_ERROR(CheckText(request));
  const std::string made_up_id = MakeUpRequestId(request);
  v1::GenerateResponse response;
  RETURN_IF_ERROR(WithRetries(options, [&](Attempt& a) {
    SetRequestId(made_up_id, a.number, &request);
    a.status = FromGrpcStatus(
        a.server->inference->Generate(&a.context, request, &response));
  }));
  return response;
}

absl::Status Client::StreamGenerate(
    v1::GenerateRequest request,
    absl::FunctionRef<bool(const v1::StreamGenerateResponse&)> on_message,
    const CallOptions& options) {
  RETURN_IF_ERROR(CheckText(request));
  const std::string made_up_id = MakeUpRequestId(request);
  v1::StreamGenerateRequest wrapped;
  *wrapped.mutable_request() = std::move(request);
  if (options.resume_window > absl::ZeroDuration()) {
    SetRequestId(made_up_id, 1, wrapped.mutable_request());
    return ResumingStream(std::move(wrapped), on_message, options);
  }
  return WithRetries(options, [&](Attempt& a) {
    SetRequestId(made_up_id, a.number, wrapped.mutable_request());
    auto stream = a.server->inference->StreamGenerate(&a.context, wrapped);
    v1::StreamGenerateResponse message;
    bool wanted = true;
    while (wanted && stream->Read(&message)) {
      if (!SaysOnlyWhatWasAdmitted(message)) a.may_retry = false;
      wanted = on_message(message);
    }
    if (!wanted) a.context.TryCancel();
    a.status = FromGrpcStatus(stream->Finish());
    // The end may already have been on its way when the callback said no.
    if (!wanted) a.status = absl::CancelledError("cancelled by the caller");
  });
}

absl::Status Client::ResumingStream(
    v1::StreamGenerateRequest request,
    absl::FunctionRef<bool(const v1::StreamGenerateResponse&)> on_message,
    const CallOptions& options) {
  const std::string request_id = request.request().request_id();
  *request.mutable_resume_window() = ToProto(options.resume_window);
  AnswerProgress progress(
      std::max(1, request.request().sampling().sample_count()));
  bool resumes = false;                 // or asks for the first time
  bool wanted = true;                   // by `on_message`
  absl::optional<absl::Time> broke_at;  // without a word since
  absl::Status why_broken;
  const absl::Status status = WithRetries(options, [&](Attempt& a) {
    const absl::Time begin = options_.clock->Now();
    progress.BeginStream();
    const auto stream =
        resumes ? a.server->inference->ResumeGenerate(&a.context,
                                                      progress.Rest(request_id))
                : a.server->inference->StreamGenerate(&a.context, request);
    v1::StreamGenerateResponse message;
    bool was_connected = false;
    while (wanted && stream->Read(&message)) {
      was_connected = true;
      const bool says_something = !SaysOnlyWhatWasAdmitted(message);
      if (!progress.Take(&message)) continue;
      if (says_something) broke_at.reset();
      wanted = on_message(message);
    }
    if (!wanted) a.context.TryCancel();
    a.status = FromGrpcStatus(stream->Finish());
    if (!wanted) {
      a.status = absl::CancelledError("cancelled by the caller");
      return;
    }
    if (progress.is_complete()) {
      a.status = absl::OkStatus();  // Only the goodbye may be missing.
      return;
    }
    const absl::Time now = options_.clock->Now();
    // A server that is about to end cancels calls that come now.
    const bool is_cancelled =
        absl::IsCancelled(a.status) && progress.was_admitted() &&
        (options.cancellation == nullptr || !options.cancellation->cancelled());
    if (absl::IsUnavailable(a.status) || absl::IsUnknown(a.status) ||
        is_cancelled) {
      why_broken = a.status;
      a.is_passing = true;
      if (was_connected && now - begin > options_.backoff_max) broke_at.reset();
      if (progress.was_admitted()) {
        resumes = true;
        if (!broke_at.has_value()) broke_at = now;
        a.retry_until = *broke_at + options.resume_window;
      }
    } else if (!resumes && absl::IsAlreadyExists(a.status) && a.number > 1) {
      // An attempt of which we heard nothing has come through.
      resumes = a.is_passing = true;
    } else if (resumes && absl::IsNotFound(a.status) &&
               absl::IsCancelled(why_broken)) {
      a.status = why_broken;  // Somebody has aborted it.
    } else if (resumes && absl::IsNotFound(a.status) && !progress.has_begun()) {
      // It never came to be, or is gone, and nobody has seen anything of it.
      resumes = false;
      a.is_passing = true;
    } else if (resumes && absl::IsUnimplemented(a.status)) {
      a.status = why_broken;
      a.may_retry = false;
    } else if (resumes && absl::IsNotFound(a.status)) {
      a.status = absl::NotFoundError(absl::StrCat(
          "the connection broke (", why_broken.message(),
          ") and the answer cannot be resumed: ", a.status.message()));
    }
  });
  if (absl::IsCancelled(status) && (progress.was_admitted() || resumes)) {
    // To the cluster a cancelled call is a connection that broke.
    CallOptions abort;
    abort.deadline = kAbortPatience;
    Abort(request_id, abort).IgnoreError();
  }
  return status;
}

absl::Status Client::BatchGenerate(
    absl::FunctionRef<bool(v1::BatchGenerateRequest*)> next,
    absl::FunctionRef<bool(const v1::BatchGenerateResponse&)> on_result,
    const CallOptions& options) {
  Unanswered unanswered;
  return WithRetries(options, [&](Attempt& a) {
    unanswered.Restart();
    auto stream = a.server->inference->BatchGenerate(&a.context);
    absl::Status unsendable;  // the writer's, until it is joined
    std::thread writer([&] {
      v1::BatchGenerateRequest request;
      while (unanswered.Next(next, &request)) {
        unsendable = CheckText(request);
        if (!unsendable.ok()) {
          a.context.TryCancel();
          return;
        }
        // Waits while the cluster's flow control says so.
        if (!stream->Write(request)) return;
      }
      stream->WritesDone();
    });
    v1::BatchGenerateResponse result;
    absl::Status passing;  // why some prompt has to be sent again
    absl::Status failed;   // why this call ended it
    while (failed.ok() && stream->Read(&result)) {
      if (result.has_error() && MayPass(result.error())) {
        const v1::RequestError& error = result.error();
        passing = Passing(static_cast<absl::StatusCode>(error.code()),
                          error.message());
        a.least_pause = std::max(a.least_pause,
                                 absl::Seconds(error.retry_delay().seconds()));
        // The others that are in progress may end; with new ones a cluster that
        // cannot answer would be sent the whole batch in vain.
        unanswered.Pause();
      } else if (!unanswered.Answered(&result)) {
        failed = absl::InternalError(absl::StrCat(
            "the cluster sent a result for prompt ", result.index(),
            " of the call, which it was not sent or has answered already"));
      } else {
        a.made_progress = true;
        if (!on_result(result)) {
          failed = absl::CancelledError("cancelled by the caller");
        }
      }
    }
    // Also lets a writer go that waits for room.
    if (!failed.ok()) a.context.TryCancel();
    writer.join();
    a.status = FromGrpcStatus(stream->Finish());
    if (!failed.ok()) {
      a.status = failed;
    } else if (!unsendable.ok()) {
      a.status = unsendable;
    } else if (!a.status.ok() && options.cancellation != nullptr &&
               options.cancellation->cancelled()) {
      a.status = absl::CancelledError("cancelled by the caller");
    } else if (BrokeOff(a.status)) {
      a.is_passing = true;
      a.status = Passing(a.status.code(), a.status.message());
    } else if (a.status.ok() && !passing.ok()) {
      a.is_passing = true;
      a.status = passing;
    } else if (a.status.ok() && unanswered.size() > 0) {
      a.status = absl::InternalError(
          absl::StrCat("the cluster ended the batch and left ",
                       unanswered.size(), " prompts without a result"));
    }
  });
}

absl::Status Client::Abort(const std::string& request_id,
                           const CallOptions& options) {
  v1::AbortRequest request;
  request.set_request_id(request_id);
  return Unary<v1::AbortRequest, v1::AbortResponse>(
             request, options,
             [](const Server& server, auto context, const auto& request,
                auto response) {
               return server.inference->Abort(context, request, response);
             })
      .status();
}

absl::StatusOr<v1::TokenizeResponse> Client::Tokenize(
    const v1::TokenizeRequest& request, const CallOptions& options) {
  return Unary<v1::TokenizeRequest, v1::TokenizeResponse>(
      request, options,
      [](const Server& server, auto context, const auto& request,
         auto response) {
        return server.inference->Tokenize(context, request, response);
      });
}

absl::StatusOr<v1::DetokenizeResponse> Client::Detokenize(
    const v1::DetokenizeRequest& request, const CallOptions& options) {
  return Unary<v1::DetokenizeRequest, v1::DetokenizeResponse>(
      request, options,
      [](const Server& server, auto context, const auto& request,
         auto response) {
        return server.inference->Detokenize(context, request, response);
      });
}

absl::StatusOr<v1::ListModelsResponse> Client::ListModels(
    const CallOptions& options) {
  return Unary<v1::ListModelsRequest, v1::ListModelsResponse>(
      {}, options,
      [](const Server& server, auto context, const auto& request,
         auto response) {
        return server.inference->ListModels(context, request, response);
      });
}

absl::StatusOr<v1::GetModelResponse> Client::GetModel(
    const v1::GetModelRequest& request, const CallOptions& options) {
  return Unary<v1::GetModelRequest, v1::GetModelResponse>(
      request, options,
      [](const Server& server, auto context, const auto& request,
         auto response) {
        return server.inference->GetModel(context, request, response);
      });
}

absl::StatusOr<v1::ListWorkersResponse> Client::ListWorkers(
    const CallOptions& options) {
  return Unary<v1::ListWorkersRequest, v1::ListWorkersResponse>(
      {}, options,
      [](const Server& server, auto context, const auto& request,
         auto response) {
        return server.cluster->ListWorkers(context, request, response);
      });
}

absl::StatusOr<v1::LoadModelResponse> Client::LoadModel(
    const v1::LoadModelRequest& request, const CallOptions& options) {
  return Unary<v1::LoadModelRequest, v1::LoadModelResponse>(
      request, options,
      [](const Server& server, auto context, const auto& request,
         auto response) {
        return server.admin->LoadModel(context, request, response);
      });
}

absl::StatusOr<v1::UnloadModelResponse> Client::UnloadModel(
    const v1::UnloadModelRequest& request, const CallOptions& options) {
  return Unary<v1::UnloadModelRequest, v1::UnloadModelResponse>(
      request, options,
      [](const Server& server, auto context, const auto& request,
         auto response) {
        return server.admin->UnloadModel(context, request, response);
      });
}

absl::Status Client::CordonWorker(const v1::CordonWorkerRequest& request,
                                  const CallOptions& options) {
  return Unary<v1::CordonWorkerRequest, v1::CordonWorkerResponse>(
             request, options,
             [](const Server& server, auto context, const auto& request,
                auto response) {
               return server.admin->CordonWorker(context, request, response);
             })
      .status();
}

absl::StatusOr<bool> Client::IsServing(const std::string& service,
                                       const CallOptions& options) {
  // HealthCheckRequest is one string and HealthCheckResponse one enum, each
  // field number 1: on the wire the same as these two, so that the health
  // protocol needs no copy here. grpc.health.v1 numbers SERVING 1.
  using google::protobuf::Int32Value;
  using google::protobuf::StringValue;
  constexpr int32_t kServing = 1;
  StringValue request;
  request.set_value(service);
  Int32Value response;
  RETURN_IF_ERROR(WithRetries(options, [&](Attempt& a) {
    grpc::TemplatedGenericStub<StringValue, Int32Value> stub(a.server->channel);
    absl::Notification done;
    stub.UnaryCall(&a.context, "/grpc.health.v1.Health/Check",
                   grpc::StubOptions(), &request, &response,
                   [&](const grpc::Status& status) {
                     a.status = FromGrpcStatus(status);
                     done.Notify();
                   });
    done.WaitForNotification();
  }));
  return response.value() == kServing;
}

}  // namespace tern
