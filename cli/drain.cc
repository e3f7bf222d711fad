#include "cli/drain.h"

#include <iostream>
#include <memory>
#include <string>

#include "absl/flags/flag.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "cli/connection.h"
#include "cli/report.h"
#include "client/client.h"
#include "util/credential_flags.h"
#include "util/status_macros.h"

ABSL_FLAG(bool, undo, false, "Puts the worker back into service.");
ABSL_FLAG(absl::Duration, drain_wait, absl::InfiniteDuration(),
          "How long to wait until the worker has no stage any more. 0: not at "
          "all.");

namespace tern {
namespace {

constexpr absl::Duration kPoll = absl::Milliseconds(100);

// Whether the worker has a stage. It may be away: then it has none.
absl::StatusOr<bool> HasStage(Client* client, const std::string& worker_id,
                              const CallOptions& call) {
  ASSIGN_OR_RETURN(const v1::ListWorkersResponse workers,
                   client->ListWorkers(call));
  for (const v1::Worker& worker : workers.workers()) {
    if (worker.worker_id() == worker_id) return !worker.pipeline_id().empty();
  }
  return false;
}

absl::Status Do(const std::string& worker_id, const ClientOptions& options) {
  ASSIGN_OR_RETURN(const std::unique_ptr<Client> client,
                   Client::Create(options));
  CallOptions call;
  call.cancellation = CancelledByUser();
  v1::CordonWorkerRequest request;
  request.set_worker_id(worker_id);
  request.set_cordoned(!absl::GetFlag(FLAGS_undo));
  RETURN_IF_ERROR(client->CordonWorker(request, call));
  if (!request.cordoned()) {
    std::cout << "worker " << worker_id << " may serve again" << std::endl;
    return absl::OkStatus();
  }
  const absl::Duration patience = absl::GetFlag(FLAGS_drain_wait);
  const absl::Time deadline = absl::Now() + patience;
  while (patience > absl::ZeroDuration()) {
    ASSIGN_OR_RETURN(const bool has_stage,
                     HasStage(client.get(), worker_id, call));
    if (!has_stage) {
      std::cout << "worker " << worker_id << " has no stage any more"
                << std::endl;
      return absl::OkStatus();
    }
    if (absl::Now() >= deadline) {
      return absl::DeadlineExceededError(
          absl::StrCat("worker ", worker_id,
                       " still ends what nobody else can take over; it gets "
                       "nothing new"));
    }
    if (call.cancellation->WaitFor(kPoll)) {
      return absl::CancelledError(
          "interrupted; the worker leaves all the same");
    }
  }
  std::cout << "worker " << worker_id << " gets nothing new" << std::endl;
  return absl::OkStatus();
}

ExitCode Run(const Arguments& arguments) {
  if (arguments.positional.size() != 1) {
    return ReportUsage("drain", "name one worker, as tern status does");
  }
  const ClientOptions options = ClientOptionsFromFlags();
  return Report(Do(arguments.positional[0], options), options.server);
}

}  // namespace

Command DrainCommand() {
  return {"drain",
          "take a worker out of service",
          R"(usage: tern drain [FLAGS] WORKER

Has a worker serve no more, without ending its process: what it runs moves to
other workers, or ends there where nobody else can take it over, and it gets no
stage until --undo. With TLS it takes a certificate of tern-operator.
)",
          {"cli/drain.cc", kConnectionFlagsFile, kCredentialFlagsFile},
          &Run};
}

}  // namespace tern
