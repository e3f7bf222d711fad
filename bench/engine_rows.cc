#include "bench/engine_rows.h"

#include <sched.h>
#include <stdlib.h>

#include <algorithm>
#include <fstream>
#include <iostream>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/time.h"
#include "bench/engine_report.h"
#include "bench/lengths.h"
#include "bench/local_servers.h"
#include "bench/machine_peaks.h"
#include "bench/serve_report.h"
#include "bench/serving.h"
#include "cli/command.h"
#include "cli/connection.h"
#include "client/cancellation.h"
#include "proto/tern/v1/inference.pb.h"
#include "util/status_macros.h"
#include "worker/thread_pool.h"

namespace tern {

double TokensPerSecond(const ServeReport& report) {
  const double s = absl::ToDoubleSeconds(report.load.window);
  return s > 0 ? static_cast<double>(report.load.n_output_tokens) / s : 0;
}

// One processor of each core that this process may use.
std::vector<int> CpusOfCores() {
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0) return {};
  std::vector<int> cpus;
  std::set<std::string> cores;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &allowed)) continue;
    std::string siblings;
    std::getline(std::ifstream(absl::StrCat("/sys/devices/system/cpu/cpu", cpu,
                                            "/topology/thread_siblings_list")),
                 siblings);
    if (siblings.empty() || cores.insert(siblings).second) cpus.push_back(cpu);
  }
  return cpus;
}

const std::vector<EngineBench::Row>& EngineBench::Rows() {
  static const std::vector<Row>* const rows =
      new std::vector<Row>{{"cpu", false, &EngineBench::Cpu},
                           {"plan", false, &EngineBench::Plan},
                           {"prefix", false, &EngineBench::Prefix},
                           {"held", false, &EngineBench::Held},
                           {"idle", false, &EngineBench::Idle},
                           {"mocks", false, &EngineBench::Mocks},
                           {"journal", false, &EngineBench::Journal},
                           {"depth", true, &EngineBench::Depth},
                           {"serve", true, &EngineBench::Serve},
                           {"replicas", true, &EngineBench::Replicas},
                           {"arrival", true, &EngineBench::Arrival}};
  return *rows;
}

std::vector<std::string> EngineBench::Names() {
  std::vector<std::string> names;
  for (const Row& row : Rows()) names.push_back(row.name);
  return names;
}

absl::StatusOr<EngineReport> EngineBench::Run(
    const std::set<std::string>& names) {
  double busy[1] = {0};
  if (getloadavg(busy, 1) < 1) busy[0] = 0;
  for (const Row& row : Rows()) {
    if (names.count(row.name) == 0) continue;
    row_ = row.name;
    real_ = row.real;
    if (real_ && bandwidths_.empty()) MeasurePeaks();
    const absl::Status measured = (this->*row.measure)();
    progress_.Clear();
    if (!measured.ok()) {
      return absl::Status(measured.code(), absl::StrCat("row ", row.name, ": ",
                                                        measured.message()));
    }
    if (real_) MeasurePeaks();
    for (const EngineFigure& figure : report_.figures) {
      if (figure.row == row_) std::cerr << LineOf(figure) << std::endl;
    }
  }
  report_.settings = {
      {"machine",
       absl::StrFormat("%d processors; load average %.1f when it began",
                       std::thread::hardware_concurrency(), busy[0])},
      {"loads", absl::StrCat(absl::FormatDuration(options_.duration),
                             " with mock workers, ", options_.requests,
                             " requests a client with real ones; medians of ",
                             options_.rounds,
                             options_.rounds == 1 ? " turn" : " turns")}};
  if (!bandwidths_.empty()) {
    report_.settings.push_back({"model", options_.model_file});
    report_.settings.push_back(
        {"peaks",
         absl::StrFormat(
             "reads %.1f GB/s (one core %.1f), %.0f G multiply-adds/s "
             "(one core %.0f)",
             Median(bandwidths_) / 1e9, Median(bandwidths_1_) / 1e9,
             Median(multiply_adds_) / 1e9, Median(multiply_adds_1_) / 1e9)});
  }
  return std::move(report_);
}

void EngineBench::MeasurePeaks() {
  const MachinePeaks peaks;
  ThreadPool one(1);
  ThreadPool all(std::max(1, static_cast<int>(CpusOfCores().size())));
  bandwidths_1_.push_back(peaks.ReadBandwidth(&one));
  bandwidths_.push_back(peaks.ReadBandwidth(&all));
  multiply_adds_1_.push_back(peaks.MultiplyAdds(&one));
  multiply_adds_.push_back(peaks.MultiplyAdds(&all));
}

absl::StatusOr<std::unique_ptr<LocalServers>> EngineBench::Start(
    const Cluster& cluster) {
  LocalServers::Options options;
  options.mock = cluster.mock;
  options.model_file =
      cluster.mock ? options_.mock_model_file : options_.model_file;
  options.n_stages = cluster.n_stages;
  options.n_workers = cluster.n_workers;
  options.worker_cpus = cluster.worker_cpus;
  options.coordinator_flags = {
      "--max_queued_requests=65536",
      absl::StrCat("--max_sequences=", cluster.max_sequences)};
  options.coordinator_flags.insert(options.coordinator_flags.end(),
                                   cluster.coordinator_flags.begin(),
                                   cluster.coordinator_flags.end());
  options.worker_flags = cluster.worker_flags;
  return LocalServers::Start(options);
}

absl::StatusOr<v1::Model> EngineBench::DescribeModel(LocalServers* servers) {
  absl::StatusOr<v1::Model> model =
      AwaitModel(ConnectionTo(*servers), "", options_.wait, CancelledByUser());
  if (model.ok()) return model;
  return absl::Status(model.status().code(),
                      absl::StrCat(model.status().message(), servers->Logs()));
}

absl::StatusOr<ServeReport> EngineBench::Send(const Load& load,
                                              LocalServers* servers,
                                              Cancellation* cancellation) {
  ServingOptions options;
  options.connection = ConnectionTo(*servers);
  options.wait = options_.wait;
  options.coordinator_pid = servers->coordinator_pid();
  options.load.concurrency = load.concurrency;
  options.load.n_requests = load.n_requests;
  if (load.n_requests == 0) {
    options.load.duration = options_.duration;
    options.load.warmup =
        std::min(absl::Seconds(real_ ? 5 : 3), options_.duration / 2);
    options.load.drain = absl::ZeroDuration();
  }
  ASSIGN_OR_RETURN(options.workload.prompt_tokens,
                   Lengths::Parse(absl::StrCat(load.prompt_tokens)));
  ASSIGN_OR_RETURN(options.workload.output_tokens,
                   Lengths::Parse(absl::StrCat(load.output_tokens)));
  options.workload.seed = load.seed;
  options.workload.resume_window = load.resume_window;
  if (progress_.on_terminal() && cancellation == nullptr) {
    options.load.on_progress = [this](const std::string& line) { Say(line); };
  }
  absl::StatusOr<ServeReport> report = MeasureServing(
      std::move(options),
      cancellation != nullptr ? cancellation : CancelledByUser());
  if (!report.ok()) {
    return absl::Status(
        report.status().code(),
        absl::StrCat(report.status().message(), servers->Logs()));
  }
  if (CancelledByUser()->cancelled()) {
    return absl::CancelledError("interrupted");
  }
  return report;
}

absl::StatusOr<ServeReport> EngineBench::Measure(const Cluster& cluster,
                                                 const Load& load) {
  ASSIGN_OR_RETURN(const std::unique_ptr<LocalServers> servers, Start(cluster));
  if (!cluster.mock && load.n_requests > 0) {
    // The first steps of a worker touch its memory for the first time.
    Load warmup = load;
    warmup.n_requests = load.concurrency;
    warmup.output_tokens = 4;
    warmup.seed = ~load.seed;  // other prompts, which are not in the cache
    RETURN_IF_ERROR(Send(warmup, servers.get()).status());
  }
  ASSIGN_OR_RETURN(ServeReport report, Send(load, servers.get()));
  if (!report.load.errors.empty()) {
    return absl::UnavailableError(absl::StrCat(
        "requests failed, the first with: ", report.load.first_error,
        servers->Logs()));
  }
  ASSIGN_OR_RETURN(const std::string stages, servers->Stop());
  RETURN_IF_ERROR(AddStages(stages, &report));
  return report;
}

absl::StatusOr<EngineBench::Compared> EngineBench::Compare(const Cluster& a,
                                                           const Load& load_a,
                                                           const Cluster& b,
                                                           const Load& load_b) {
  std::vector<double> first, second;
  for (int round = 0; round < options_.rounds; ++round) {
    Say(absl::StrCat("round ", round + 1, " of ", options_.rounds));
    ASSIGN_OR_RETURN(const ServeReport of_a, Measure(a, load_a));
    ASSIGN_OR_RETURN(const ServeReport of_b, Measure(b, load_b));
    first.push_back(TokensPerSecond(of_a));
    second.push_back(TokensPerSecond(of_b));
  }
  if (Median(first) == 0) {
    return absl::DeadlineExceededError(
        "no token came in the time that counts; give a longer --duration");
  }
  return Compared{Median(first), Median(second)};
}

}  // namespace tern
