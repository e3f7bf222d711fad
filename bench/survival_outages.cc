// Rows for losses that take more than one worker with them.

#include <signal.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "bench/local_servers.h"
#include "bench/statistics.h"
#include "bench/survival_rows.h"
#include "bench/timed_stream.h"
#include "client/client.h"
#include "proto/tern/v1/cluster.pb.h"
#include "util/status_macros.h"

namespace tern {
namespace {

// How long a client may come back to its answer.
constexpr absl::Duration kResumeWindow = absl::Minutes(1);

}  // namespace

// Two pipelines of two stages: both stages of the busy one are killed in the
// same moment.
absl::Status SurvivalBench::Both() {
  RETURN_IF_ERROR(Start(2, 4, {"--threads=1"}));
  std::vector<double> pauses;
  for (int round = 0; round < options_.rounds; ++round) {
    Say(round);
    const uint64_t seed = 3000 + round;
    TimedStream alone(client_.get(), options_.prompt_tokens, kStreamTokens,
                      vocab_size_, seed);
    RETURN_IF_ERROR(alone.AwaitEnd());
    TimedStream stream(client_.get(), options_.prompt_tokens, kStreamTokens,
                       vocab_size_, seed);
    stream.AwaitTokens(kStreamTokensBefore);
    ASSIGN_OR_RETURN(const std::string busy, BusyWorker());
    ASSIGN_OR_RETURN(const v1::ListWorkersResponse workers, Workers());
    const int first = Find(workers, [&busy](const v1::Worker& worker) {
      return worker.worker_id() == busy;
    });
    if (first < 0) return absl::InternalError("nobody runs the stream");
    std::vector<int> victims;
    for (int i = 0; i < workers.workers_size(); ++i) {
      if (workers.workers(i).pipeline_id() ==
          workers.workers(first).pipeline_id()) {
        victims.push_back(i);
      }
    }
    const absl::Time begin = absl::Now();
    for (const int i : victims) servers_->worker(i).Signal(SIGKILL);
    RETURN_IF_ERROR(stream.AwaitEnd());
    pauses.push_back(absl::ToDoubleSeconds(stream.GoesOnAfter(begin) - begin));
    ++n_compared_;
    n_changed_ += stream.tokens() != alone.tokens();
    for (const int i : victims) {
      RETURN_IF_ERROR(servers_->worker(i).Wait(absl::Seconds(10)).status());
      RETURN_IF_ERROR(servers_->StartWorker(i));
    }
    RETURN_IF_ERROR(AwaitAll(4));
  }
  EngineFigure figure;
  figure.what = "both stages of a pipeline killed: until its stream goes on";
  figure.unit = "s";
  figure.decimals = 3;
  figure.more_is_better = false;
  figure.measured = Median(pauses);
  figure.target = 3;
  figure.detail = "wanted: 1 s to notice, 2 s to go on, with another pipeline";
  Add(figure);
  return absl::OkStatus();
}

// The coordinator is killed and started again at once, with its journal.
absl::Status SurvivalBench::CoordinatorDeath() {
  std::vector<double> pauses;
  for (int round = 0; round < options_.rounds; ++round) {
    Say(round);
    RETURN_IF_ERROR(Start(1, 1, {"--threads=1"}, /*with_journal=*/true));
    const uint64_t seed = 4000 + round;
    TimedStream alone(client_.get(), options_.prompt_tokens, kStreamTokens,
                      vocab_size_, seed);
    RETURN_IF_ERROR(alone.AwaitEnd());
    // One that comes back by itself.
    ClientOptions connection;
    connection.server = servers_->address();
    ASSIGN_OR_RETURN(const std::unique_ptr<Client> resuming,
                     Client::Create(connection));
    CallOptions call;
    call.deadline = options_.wait;
    call.resume_window = kResumeWindow;
    TimedStream stream(resuming.get(), options_.prompt_tokens, kStreamTokens,
                       vocab_size_, seed, call);
    stream.AwaitTokens(kStreamTokensBefore);
    const absl::Time begin = absl::Now();
    RETURN_IF_ERROR(servers_->RestartCoordinator());
    RETURN_IF_ERROR(stream.AwaitEnd());
    pauses.push_back(absl::ToDoubleSeconds(stream.GoesOnAfter(begin) - begin));
    ++n_compared_;
    n_changed_ += stream.tokens() != alone.tokens();
  }
  EngineFigure figure;
  figure.what =
      "coordinator killed and started again: until the stream goes on";
  figure.unit = "s";
  figure.decimals = 2;
  figure.more_is_better = false;
  figure.measured = Median(pauses);
  figure.target = 5;
  figure.detail =
      "it starts and hashes the model, the worker and the client come back";
  Add(figure);
  return absl::OkStatus();
}

}  // namespace tern
