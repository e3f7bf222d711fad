// serve_bench: what `tern bench serve` runs. See kUsage.

#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "bench/lengths.h"
#include "bench/load_generator.h"
#include "bench/local_servers.h"
#include "bench/serve_report.h"
#include "bench/serving.h"
#include "cli/command.h"
#include "cli/connection.h"
#include "cli/model_flag.h"
#include "cli/report.h"
#include "client/client.h"
#include "util/credential_flags.h"
#include "util/server_main.h"
#include "util/status_macros.h"

ABSL_FLAG(int, concurrency, 0,
          "Requests under way: when one ends, the next starts. With --rate the "
          "most there may be; above that a request is not sent, and counted. "
          "0: 16, with --rate 10000.");
ABSL_FLAG(double, rate, 0,
          "Requests a second on average, at random (Poisson) times, however "
          "many are under way. 0: as --concurrency says.");
ABSL_FLAG(absl::Duration, duration, absl::ZeroDuration(),
          "How long to send requests. 0: 10s, or until --requests are sent.");
ABSL_FLAG(int64_t, requests, 0, "Requests to send. 0: as --duration says.");
ABSL_FLAG(absl::Duration, warmup, absl::ZeroDuration(),
          "Time before --duration in which nothing counts.");
ABSL_FLAG(absl::Duration, drain, absl::Seconds(30),
          "How long the last requests may take before they are cancelled.");
ABSL_FLAG(std::string, prompt_tokens, "96",
          "Lengths of prompts in tokens: 96, uniform:32-512, "
          "lognormal:MEDIAN,SIGMA or lognormal:MEDIAN,SIGMA,MAX.");
ABSL_FLAG(std::string, output_tokens, "64",
          "Most tokens of an answer, given like --prompt_tokens.");
ABSL_FLAG(int, shared_prefix_tokens, 0,
          "So many tokens at the beginning of a prompt are those of its group; "
          "each prompt has one more at the least.");
ABSL_FLAG(int, prefix_groups, 1, "Groups that prompts are drawn into.");
ABSL_FLAG(double, cancel_share, 0,
          "Part of the requests that the client cancels at a random token.");
ABSL_FLAG(bool, ignore_eos, true,
          "Answers go on past the end-of-sequence token, up to the length "
          "asked for.");
ABSL_FLAG(float, temperature, 1,
          "Of the answers; 0 for greedy ones, which repeat themselves more.");
ABSL_FLAG(uint64_t, seed, 1,
          "Of everything random in prompts and times. A cluster that has seen "
          "the prompts of a seed may have them in its prefix cache.");
ABSL_FLAG(double, goodput_ttft_ms, 0,
          "Requests whose first token takes longer are not good. 0: no limit.");
ABSL_FLAG(double, goodput_itl_ms, 0,
          "Requests whose mean gap between tokens is longer are not good. 0: "
          "no limit.");
ABSL_FLAG(std::string, json, "", "File for the results. Empty: none.");
ABSL_FLAG(std::string, plot, "", "File for a drawing (SVG). Empty: none.");
ABSL_FLAG(absl::Duration, wait, absl::Seconds(60),
          "How long to wait for a cluster that is loading.");
ABSL_FLAG(int, coordinator_pid, 0,
          "Process of the coordinator on this machine, to measure its CPU time "
          "per token. 0: do not, unless --start_cluster knows it.");
ABSL_FLAG(std::string, start_cluster, "",
          "Starts a cluster on this machine and stops it in the end: real, or "
          "mock with workers that wait instead of computing.");
ABSL_FLAG(std::string, model_file, "",
          "With --start_cluster: the model, a GGUF file or a directory.");
ABSL_FLAG(int, stages, 1, "With --start_cluster: stages of the model.");
ABSL_FLAG(int, workers, 0,
          "With --start_cluster: workers to start. 0: as many as stages.");
ABSL_FLAG(std::string, coordinator_flags, "",
          "With --start_cluster: more flags for the coordinator, separated by "
          "spaces. It is started with --max_queued_requests and, without "
          "--rate, --max_sequences for --concurrency.");
ABSL_FLAG(std::string, worker_flags, "",
          "With --start_cluster: more flags for each worker (or mock_worker).");

namespace tern {
namespace {

constexpr char kUsage[] =
    R"(usage: tern bench serve [FLAGS]
       tern bench serve --start_cluster=mock --model_file=FILE [FLAGS]

Sends streams of random tokens to a cluster and reports times and throughput.

A gap is the time between two tokens that follow each other. Tokens that come
in one message are seen at one time: the first has the gap, the others 0.
)";

// Every stream keeps a call, buffers and a prompt in memory.
constexpr int kConcurrencyMax = 100000;

absl::Status Wrong(absl::string_view flag, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("--", flag, " ", what));
}

struct Request {
  LoadOptions load;
  absl::StatusOr<Lengths> prompt_tokens = absl::UnknownError("");
  absl::StatusOr<Lengths> output_tokens = absl::UnknownError("");
  absl::optional<LocalServers::Options> servers;
};

std::vector<std::string> Words(const std::string& text) {
  return absl::StrSplit(text, ' ', absl::SkipEmpty());
}

absl::Status SetServers(Request* request) {
  const std::string kind = absl::GetFlag(FLAGS_start_cluster);
  if (kind.empty()) return absl::OkStatus();
  if (kind != "mock" && kind != "real") {
    return Wrong("start_cluster",
                 absl::StrCat("is \"", kind, "\"; it must be mock or real"));
  }
  LocalServers::Options& servers = request->servers.emplace();
  servers.mock = kind == "mock";
  servers.model_file = absl::GetFlag(FLAGS_model_file);
  if (servers.model_file.empty()) {
    return Wrong("model_file", "is missing: --start_cluster needs a model");
  }
  servers.n_stages = absl::GetFlag(FLAGS_stages);
  servers.n_workers = absl::GetFlag(FLAGS_workers);
  if (servers.n_workers == 0) servers.n_workers = servers.n_stages;
  if (servers.n_stages < 1 || servers.n_workers < servers.n_stages ||
      servers.n_workers > 256) {
    return Wrong("stages", absl::StrCat("is ", servers.n_stages,
                                        " and --workers ", servers.n_workers,
                                        "; there must be a worker for each "
                                        "stage, and at most 256"));
  }
  const int n = request->load.concurrency;
  servers.coordinator_flags = {
      absl::StrCat("--max_queued_requests=", std::max(1024, n))};
  if (request->load.rate == 0) {
    servers.coordinator_flags.push_back(
        absl::StrCat("--max_sequences=", std::max(64, n)));
  }
  for (std::string& flag : Words(absl::GetFlag(FLAGS_coordinator_flags))) {
    servers.coordinator_flags.push_back(std::move(flag));
  }
  servers.worker_flags = Words(absl::GetFlag(FLAGS_worker_flags));
  return absl::OkStatus();
}

// A --json or --plot that cannot be written is better known before.
absl::Status CheckWritable(absl::string_view flag, const std::string& path) {
  if (path.empty() || std::ofstream(path, std::ios::app)) {
    return absl::OkStatus();
  }
  return Wrong(flag, absl::StrCat("cannot be written: ", path));
}

absl::StatusOr<Request> RequestFromFlags() {
  Request request;
  LoadOptions& load = request.load;
  load.concurrency = absl::GetFlag(FLAGS_concurrency);
  load.rate = absl::GetFlag(FLAGS_rate);
  load.n_requests = absl::GetFlag(FLAGS_requests);
  load.warmup = absl::GetFlag(FLAGS_warmup);
  load.drain = absl::GetFlag(FLAGS_drain);
  if (load.concurrency < 0 || load.concurrency > kConcurrencyMax) {
    return Wrong("concurrency",
                 absl::StrCat("is ", load.concurrency, "; it must be in [0, ",
                              kConcurrencyMax, "]"));
  }
  if (!(load.rate >= 0 && load.rate <= 1e6)) {
    return Wrong(
        "rate", absl::StrCat("is ", load.rate, "; it must be in [0, 1000000]"));
  }
  if (load.concurrency == 0) load.concurrency = load.rate > 0 ? 10000 : 16;
  if (load.n_requests < 0) return Wrong("requests", "is negative");
  const absl::Duration duration = absl::GetFlag(FLAGS_duration);
  if (duration < absl::ZeroDuration() || load.warmup < absl::ZeroDuration() ||
      load.drain < absl::ZeroDuration()) {
    return Wrong("duration", "--warmup and --drain must not be negative");
  }
  if (duration > absl::ZeroDuration()) {
    load.duration = duration;
  } else if (load.n_requests == 0) {
    load.duration = absl::Seconds(10);
  }
  const double ttft_ms = absl::GetFlag(FLAGS_goodput_ttft_ms);
  const double itl_ms = absl::GetFlag(FLAGS_goodput_itl_ms);
  if (!(ttft_ms >= 0 && itl_ms >= 0)) {
    return Wrong("goodput_ttft_ms", "and --goodput_itl_ms must be at least 0");
  }
  if (ttft_ms > 0) load.good_ttft = absl::Milliseconds(ttft_ms);
  if (itl_ms > 0) load.good_itl = absl::Milliseconds(itl_ms);
  request.prompt_tokens = Lengths::Parse(absl::GetFlag(FLAGS_prompt_tokens));
  if (!request.prompt_tokens.ok()) {
    return Wrong("prompt_tokens", request.prompt_tokens.status().message());
  }
  request.output_tokens = Lengths::Parse(absl::GetFlag(FLAGS_output_tokens));
  if (!request.output_tokens.ok()) {
    return Wrong("output_tokens", request.output_tokens.status().message());
  }
  if (absl::GetFlag(FLAGS_coordinator_pid) < 0) {
    return Wrong("coordinator_pid", "is negative");
  }
  RETURN_IF_ERROR(CheckWritable("json", absl::GetFlag(FLAGS_json)));
  RETURN_IF_ERROR(CheckWritable("plot", absl::GetFlag(FLAGS_plot)));
  RETURN_IF_ERROR(SetServers(&request));
  return request;
}

// One line, drawn again and again where that looks well.
class ProgressLine {
 public:
  void Show(const std::string& line) {
    if (!on_terminal_) return;
    std::cerr << "\r" << line << "\x1b[K" << std::flush;
    drawn_ = true;
  }
  void Clear() {
    if (drawn_) std::cerr << "\r\x1b[K" << std::flush;
  }

 private:
  const bool on_terminal_ = isatty(STDERR_FILENO) == 1;
  bool drawn_ = false;
};

absl::Status WriteFile(const std::string& path, const std::string& contents) {
  if (path.empty()) return absl::OkStatus();
  std::ofstream file(path, std::ios::trunc);
  file << contents;
  file.close();
  if (file) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat("cannot write ", path));
}

std::string DescribeLoad(const LoadOptions& load) {
  std::string text =
      load.rate > 0 ? absl::StrCat(load.rate, " requests/s (Poisson), at most ",
                                   load.concurrency, " under way")
                    : absl::StrCat(load.concurrency, " requests under way");
  absl::StrAppend(&text, ", ", absl::GetFlag(FLAGS_prompt_tokens),
                  " tokens in, ", absl::GetFlag(FLAGS_output_tokens), " out");
  if (absl::GetFlag(FLAGS_shared_prefix_tokens) > 0) {
    absl::StrAppend(&text, ", prefix of ",
                    absl::GetFlag(FLAGS_shared_prefix_tokens), " shared by ",
                    absl::GetFlag(FLAGS_prefix_groups), " groups");
  }
  if (absl::GetFlag(FLAGS_cancel_share) > 0) {
    absl::StrAppend(&text, ", ", absl::GetFlag(FLAGS_cancel_share),
                    " cancelled");
  }
  return absl::StrCat(text, ", seed ", absl::GetFlag(FLAGS_seed));
}

absl::StatusOr<ServeReport> Measure(Request request,
                                    const ClientOptions& connection,
                                    LocalServers* servers) {
  ServingOptions options;
  options.connection = connection;
  options.model = ModelFromFlag();
  options.wait = absl::GetFlag(FLAGS_wait);
  options.coordinator_pid = servers != nullptr
                                ? servers->coordinator_pid()
                                : absl::GetFlag(FLAGS_coordinator_pid);
  options.workload.prompt_tokens = *request.prompt_tokens;
  options.workload.output_tokens = *request.output_tokens;
  options.workload.shared_prefix_tokens =
      absl::GetFlag(FLAGS_shared_prefix_tokens);
  options.workload.prefix_groups = absl::GetFlag(FLAGS_prefix_groups);
  options.workload.cancel_share = absl::GetFlag(FLAGS_cancel_share);
  options.workload.ignore_eos = absl::GetFlag(FLAGS_ignore_eos);
  options.workload.temperature = absl::GetFlag(FLAGS_temperature);
  options.workload.seed = absl::GetFlag(FLAGS_seed);
  options.load = request.load;
  options.load.deadline = connection.default_deadline;
  ProgressLine progress;
  options.load.on_progress = [&progress](const std::string& line) {
    progress.Show(line);
  };
  absl::StatusOr<ServeReport> report =
      MeasureServing(std::move(options), CancelledByUser());
  progress.Clear();
  if (!report.ok()) return report;
  report->settings.push_back({"load", DescribeLoad(request.load)});
  if (servers != nullptr) {
    report->settings.push_back(
        {"cluster", absl::StrCat(absl::GetFlag(FLAGS_start_cluster), ", ",
                                 request.servers->n_stages, " stages, ",
                                 absl::GetFlag(FLAGS_worker_flags))});
  }
  return report;
}

absl::Status Run(Request request, ClientOptions connection) {
  std::unique_ptr<LocalServers> servers;
  if (request.servers.has_value()) {
    ASSIGN_OR_RETURN(servers, LocalServers::Start(*request.servers));
    connection.server = servers->address();
    connection.credentials = CredentialOptions();
  }
  absl::StatusOr<ServeReport> report =
      Measure(std::move(request), connection, servers.get());
  if (!report.ok()) {
    // What the user did wrong is in no log.
    if (servers == nullptr || absl::IsInvalidArgument(report.status()) ||
        absl::IsCancelled(report.status())) {
      return report.status();
    }
    return absl::Status(
        report.status().code(),
        absl::StrCat(report.status().message(), servers->Logs()));
  }
  if (servers != nullptr) {
    ASSIGN_OR_RETURN(const std::string stages, servers->Stop());
    RETURN_IF_ERROR(AddStages(stages, &*report));
  }
  std::cout << TextOf(*report);
  RETURN_IF_ERROR(WriteFile(absl::GetFlag(FLAGS_json), JsonOf(*report)));
  RETURN_IF_ERROR(WriteFile(absl::GetFlag(FLAGS_plot), PlotOf(*report)));
  const LoadResult& load = report->load;
  if (load.n_ok + load.n_cancelled > 0) return absl::OkStatus();
  if (CancelledByUser()->cancelled()) {
    return absl::CancelledError("interrupted");
  }
  return absl::FailedPreconditionError(
      load.first_error.empty()
          ? "no request began and was answered in the time that counts; give "
            "it a longer --duration and --drain"
          : absl::StrCat("no request was answered; the first error: ",
                         load.first_error));
}

ExitCode Main() {
  const ClientOptions connection = ClientOptionsFromFlags();
  absl::StatusOr<Request> request = RequestFromFlags();
  if (!request.ok()) {
    return ReportUsage("bench serve", std::string(request.status().message()));
  }
  const absl::Status status = Run(*std::move(request), connection);
  if (absl::IsInvalidArgument(status)) {
    return ReportUsage("bench serve", std::string(status.message()));
  }
  return Report(status, connection.server);
}

}  // namespace
}  // namespace tern

int main(int argc, char** argv) {
  // Before any other thread starts.
  tern::BlockShutdownSignals();
  setenv("GRPC_VERBOSITY", "NONE", /*overwrite=*/0);
  tern::ParseServerFlags(
      argc, argv, tern::kUsage,
      {"bench/serve_bench.cc", tern::kModelFlagFile, tern::kConnectionFlagsFile,
       tern::kCredentialFlagsFile});
  return tern::Main();
}
