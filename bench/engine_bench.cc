// engine_bench: what `tern bench engine` runs. See kUsage.

#include <sched.h>
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <iostream>
#include <iterator>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "bench/engine_report.h"
#include "bench/lengths.h"
#include "bench/load_generator.h"
#include "bench/local_servers.h"
#include "bench/machine_peaks.h"
#include "bench/serve_report.h"
#include "bench/serving.h"
#include "cli/command.h"
#include "cli/connection.h"
#include "cli/progress_line.h"
#include "cli/report.h"
#include "cli/sibling_program.h"
#include "client/cancellation.h"
#include "client/client.h"
#include "nlohmann/json.hpp"
#include "proto/tern/v1/inference.pb.h"
#include "tests/integration/process.h"
#include "util/server_main.h"
#include "util/status_macros.h"
#include "worker/thread_pool.h"

ABSL_FLAG(std::string, rows, "",
          "Rows to measure, separated by commas. Empty: all.");
ABSL_FLAG(std::string, model_file, "",
          "Model of the rows with real workers, a GGUF file or a directory. "
          "Empty: the demo model.");
ABSL_FLAG(std::string, mock_model_file,
          "models/demo/shakespeare-demo-i2_s.gguf",
          "The demo model: rows with mock workers read its headers and its "
          "tokenizer.");
ABSL_FLAG(absl::Duration, duration, absl::Seconds(10),
          "How long a load of mock workers counts, after a warm-up of up to "
          "3s.");
ABSL_FLAG(int, requests, 3,
          "Requests that each client of real workers sends, one after the "
          "other.");
ABSL_FLAG(int, rounds, 3,
          "Times that what is compared is measured, in turns; medians count.");
ABSL_FLAG(std::string, held_streams, "5000,20000",
          "Numbers of streams to try to hold at once, ascending.");
ABSL_FLAG(absl::Duration, wait, absl::Minutes(3),
          "How long to wait for workers that load the model.");
ABSL_FLAG(std::string, json, "", "File for the results. Empty: none.");

namespace tern {
namespace {

constexpr char kUsage[] =
    R"(usage: tern bench engine [--rows=ROW,ROW...] [--model_file=FILE] [FLAGS]

Measures what serving costs beside the arithmetic, row after row, each on
clusters of its own on this machine, and shows the figures beside what is
wanted of them and what the machine allows.

Rows with mock workers, which wait instead of computing:
  cpu        CPU time of the coordinator for each token of 256 streams
  held       streams that are held at once, none lost
  idle       share of time that 4 equal stages idle while work waits
  mocks      throughput of 16 copies of a model against that of one
Rows of the pure core:
  plan       planning one step of 256 sequences
  prefix     looking a prefix up, per block
Rows with real workers:
  depth      two stages of one thread against one of two, 16 streams
  serve      throughput with 1, 4 and 16 clients, and latencies at 16
  replicas   two workers on a core each against one on one
  arrival    gaps of 4 streams while prompts of 3,000 tokens arrive

Each figure is shown as it comes, and all of them in a table at the end.
`met` says "yes" where a figure is what it has to be, "aim" where it is what it
should be. On a busy machine figures are worse than the programs: the load
average is shown, and the limits are measured before and after the rows.
)";

constexpr int kContextOfArrival = 3200;

absl::Status Wrong(absl::string_view flag, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("--", flag, " ", what));
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t n = values.size();
  return n % 2 == 1 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

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

// A cluster of a row.
struct Cluster {
  bool mock = true;
  int n_stages = 1;
  int n_workers = 1;
  int max_sequences = 64;
  std::vector<std::string> coordinator_flags = {};
  std::vector<std::string> worker_flags = {};
  std::vector<int> worker_cpus = {};
};

// A load of a row.
struct Load {
  int concurrency = 1;
  int prompt_tokens = 0;
  int output_tokens = 0;
  // 0: as many as --duration has time for.
  int64_t n_requests = 0;
  uint64_t seed = 1;
};

class EngineBench {
 public:
  explicit EngineBench(std::string model_file)
      : model_file_(std::move(model_file)) {}

  // Measures the rows of these names, in order.
  absl::StatusOr<EngineReport> Run(const std::set<std::string>& names);

  static std::vector<std::string> Names();

 private:
  struct Row {
    const char* name;
    bool real;  // workers compute
    absl::Status (EngineBench::*measure)();
  };
  static const std::vector<Row>& Rows();

  absl::Status Cpu();
  absl::Status Plan();
  absl::Status Prefix();
  absl::Status Held();
  absl::Status Depth();
  absl::Status Idle();
  absl::Status Serve();
  absl::Status Replicas();
  absl::Status Mocks();
  absl::Status Arrival();

  absl::StatusOr<std::unique_ptr<LocalServers>> Start(const Cluster& cluster);
  // Sends the load; errors hold the logs.
  absl::StatusOr<ServeReport> Send(const Load& load, LocalServers* servers,
                                   Cancellation* cancellation = nullptr);
  // A cluster of its own for one load, with what mock stages have to say.
  absl::StatusOr<ServeReport> Measure(const Cluster& cluster, const Load& load);
  // Two clusters in turns: medians of their tokens per second.
  struct Compared {
    double first = 0;
    double second = 0;
  };
  absl::StatusOr<Compared> Compare(const Cluster& a, const Load& load_a,
                                   const Cluster& b, const Load& load_b);
  // Times of scheduler_bench in nanoseconds, medians: of one call, and of one
  // item.
  struct CoreTime {
    double call_ns = 0;
    double item_ns = 0;
  };
  absl::StatusOr<CoreTime> MeasureCore(const std::string& name);
  absl::StatusOr<v1::Model> DescribeModel(LocalServers* servers);

  void MeasurePeaks();
  double ReadBandwidth() const { return Median(bandwidths_); }

  static ClientOptions ConnectionTo(const LocalServers& servers) {
    ClientOptions connection;
    connection.server = servers.address();
    return connection;
  }

  EngineFigure& Add(EngineFigure figure) {
    figure.row = row_;
    return report_.figures.emplace_back(std::move(figure));
  }

  void Say(const std::string& what) {
    progress_.Show(absl::StrCat(row_, ": ", what));
  }

  const std::string model_file_;
  const absl::Duration duration_ = absl::GetFlag(FLAGS_duration);
  const int rounds_ = absl::GetFlag(FLAGS_rounds);
  const int requests_ = absl::GetFlag(FLAGS_requests);
  EngineReport report_;
  std::string row_;  // being measured
  bool real_ = false;
  ProgressLine progress_;

  // Of all processors, and of one; see MachinePeaks.
  std::vector<double> bandwidths_, bandwidths_1_, multiply_adds_,
      multiply_adds_1_;
};

const std::vector<EngineBench::Row>& EngineBench::Rows() {
  static const std::vector<Row>* const rows =
      new std::vector<Row>{{"cpu", false, &EngineBench::Cpu},
                           {"plan", false, &EngineBench::Plan},
                           {"prefix", false, &EngineBench::Prefix},
                           {"held", false, &EngineBench::Held},
                           {"idle", false, &EngineBench::Idle},
                           {"mocks", false, &EngineBench::Mocks},
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
      {"loads",
       absl::StrCat(absl::FormatDuration(duration_), " with mock workers, ",
                    requests_, " requests a client with real ones; medians of ",
                    rounds_, rounds_ == 1 ? " turn" : " turns")}};
  if (!bandwidths_.empty()) {
    report_.settings.push_back({"model", model_file_});
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
      cluster.mock ? absl::GetFlag(FLAGS_mock_model_file) : model_file_;
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
  absl::StatusOr<v1::Model> model = AwaitModel(
      ConnectionTo(*servers), "", absl::GetFlag(FLAGS_wait), CancelledByUser());
  if (model.ok()) return model;
  return absl::Status(model.status().code(),
                      absl::StrCat(model.status().message(), servers->Logs()));
}

absl::StatusOr<ServeReport> EngineBench::Send(const Load& load,
                                              LocalServers* servers,
                                              Cancellation* cancellation) {
  ServingOptions options;
  options.connection = ConnectionTo(*servers);
  options.wait = absl::GetFlag(FLAGS_wait);
  options.coordinator_pid = servers->coordinator_pid();
  options.load.concurrency = load.concurrency;
  options.load.n_requests = load.n_requests;
  if (load.n_requests == 0) {
    options.load.duration = duration_;
    options.load.warmup = std::min(absl::Seconds(real_ ? 5 : 3), duration_ / 2);
    options.load.drain = absl::ZeroDuration();
  }
  ASSIGN_OR_RETURN(options.workload.prompt_tokens,
                   Lengths::Parse(absl::StrCat(load.prompt_tokens)));
  ASSIGN_OR_RETURN(options.workload.output_tokens,
                   Lengths::Parse(absl::StrCat(load.output_tokens)));
  options.workload.seed = load.seed;
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
  for (int round = 0; round < rounds_; ++round) {
    Say(absl::StrCat("round ", round + 1, " of ", rounds_));
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

absl::Status EngineBench::Cpu() {
  Say("256 streams");
  Cluster cluster;
  cluster.max_sequences = 256;
  cluster.worker_flags = {"--step_us=10000", "--token_us=0", "--context_ns=0"};
  ASSIGN_OR_RETURN(const ServeReport report, Measure(cluster, {256, 32, 256}));
  const double n = static_cast<double>(report.load.n_output_tokens);
  if (n == 0 || !report.coordinator_cpu.has_value()) {
    return absl::DeadlineExceededError(
        "no token came in the time that counts; give a longer --duration");
  }
  const auto per_token = [n](absl::Duration time) {
    return absl::ToDoubleMicroseconds(time) / n;
  };
  double engine = 0;
  std::vector<std::string> parts;
  for (const auto& [name, time] : report.coordinator_cpu->by_thread_name) {
    if (name == "engine") engine = per_token(time);
    if (per_token(time) < 0.05) continue;
    parts.push_back(absl::StrFormat("%s %.2f", name, per_token(time)));
  }
  EngineFigure all;
  all.what = "coordinator CPU a token, 256 streams";
  all.unit = "us";
  all.measured = per_token(report.coordinator_cpu->total);
  all.more_is_better = false;
  all.target = 10;
  all.aim = 5;
  all.detail = absl::StrFormat(
      "%.0f tokens/s, %.2f tokens a message; us by thread: %s",
      TokensPerSecond(report),
      n / static_cast<double>(std::max<int64_t>(1, report.load.n_messages)),
      absl::StrJoin(parts, ", "));
  Add(all);
  EngineFigure part;
  part.what = "of that the engine thread";
  part.unit = "us";
  part.measured = engine;
  part.more_is_better = false;
  part.target = 2;
  Add(part);
  return absl::OkStatus();
}

absl::StatusOr<EngineBench::CoreTime> EngineBench::MeasureCore(
    const std::string& name) {
  Say("scheduler_bench");
  std::string program;
  const std::vector<std::string> paths = PathsOf({"scheduler_bench", "bench"});
  for (const std::string& path : paths) {
    if (program.empty() && access(path.c_str(), X_OK) == 0) program = path;
  }
  if (program.empty()) {
    return absl::NotFoundError(
        absl::StrCat("there is no program scheduler_bench at any of ",
                     absl::StrJoin(paths, ", ")));
  }
  const char* const tmp = std::getenv("TMPDIR");
  std::string folder =
      absl::StrCat(tmp == nullptr ? "/tmp" : tmp, "/tern-bench-XXXXXX");
  if (mkdtemp(folder.data()) == nullptr) {
    return absl::UnavailableError(
        absl::StrCat("cannot make a temporary folder like ", folder));
  }
  const std::string log = folder + "/log";
  const std::string out = folder + "/out.json";
  const auto run = [&]() -> absl::StatusOr<std::string> {
    ASSIGN_OR_RETURN(
        const std::unique_ptr<Process> process,
        Process::Start(
            {program, absl::StrCat("--benchmark_filter=^", name),
             absl::StrCat("--benchmark_repetitions=", rounds_),
             "--benchmark_min_time=0.2", absl::StrCat("--benchmark_out=", out),
             "--benchmark_out_format=json"},
            log));
    ASSIGN_OR_RETURN(const int code, process->Wait(absl::Minutes(5)));
    if (code != 0) {
      return absl::InternalError(absl::StrCat("scheduler_bench ended with ",
                                              code, ":\n", process->Log()));
    }
    std::ifstream file(out);
    return std::string(std::istreambuf_iterator<char>(file), {});
  };
  const absl::StatusOr<std::string> text = run();
  unlink(log.c_str());
  unlink(out.c_str());
  rmdir(folder.c_str());
  RETURN_IF_ERROR(text.status());
  const nlohmann::json json = nlohmann::json::parse(*text, nullptr, false);
  std::vector<double> call_ns, item_ns;
  if (json.is_object() && json.contains("benchmarks")) {
    for (const nlohmann::json& one : json["benchmarks"]) {
      if (one.value("run_type", "") != "iteration") continue;
      call_ns.push_back(one.value("real_time", 0.0));
      item_ns.push_back(1e9 / one.value("items_per_second", 1.0));
    }
  }
  if (call_ns.empty()) {
    return absl::InternalError(
        absl::StrCat("scheduler_bench measured nothing called ", name));
  }
  return CoreTime{Median(call_ns), Median(item_ns)};
}

absl::Status EngineBench::Plan() {
  ASSIGN_OR_RETURN(const CoreTime plan, MeasureCore("ScheduleDecode/256/"));
  ASSIGN_OR_RETURN(const CoreTime complete, MeasureCore("CompleteDecode/256/"));
  EngineFigure figure;
  figure.what = "planning a step of 256 sequences";
  figure.unit = "us";
  figure.measured = plan.call_ns / 1e3;
  figure.more_is_better = false;
  figure.target = 100;
  figure.aim = 30;
  figure.detail =
      absl::StrFormat("taking its result: %.1f us", complete.call_ns / 1e3);
  Add(figure);
  return absl::OkStatus();
}

absl::Status EngineBench::Prefix() {
  ASSIGN_OR_RETURN(const CoreTime near, MeasureCore("FindPrefix/8$"));
  ASSIGN_OR_RETURN(const CoreTime far, MeasureCore("FindPrefix/512$"));
  EngineFigure figure;
  figure.what = "looking a prefix up, a block";
  figure.unit = "us";
  figure.decimals = 3;
  figure.measured = far.item_ns / 1e3;
  figure.more_is_better = false;
  figure.target = 1;
  figure.aim = 0.3;
  figure.detail = absl::StrFormat(
      "in texts of 512 blocks; %.3f us in texts of 8", near.item_ns / 1e3);
  Add(figure);
  return absl::OkStatus();
}

absl::Status EngineBench::Held() {
  EngineFigure figure;
  figure.what = "streams held at once, none lost";
  figure.decimals = 0;
  figure.target = 5000;
  figure.aim = 20000;
  for (const absl::string_view word :
       absl::StrSplit(absl::GetFlag(FLAGS_held_streams), ',')) {
    int n = 0;
    if (!absl::SimpleAtoi(word, &n) || n < 1 || n > 50000) {
      return Wrong("held_streams", absl::StrCat("has \"", word,
                                                "\"; numbers in [1, 50000] "
                                                "are separated by commas"));
    }
    Say(absl::StrCat(n, " streams"));
    Cluster cluster;
    cluster.max_sequences = n;
    // So that all have a first token before one has its last.
    cluster.coordinator_flags = {"--max_step_tokens=65536"};
    cluster.worker_flags = {"--step_us=100000", "--token_us=0",
                            "--context_ns=0"};
    ASSIGN_OR_RETURN(const std::unique_ptr<LocalServers> servers,
                     Start(cluster));
    ASSIGN_OR_RETURN(const ServeReport report,
                     Send({n, 16, 48, /*n_requests=*/n}, servers.get()));
    const LoadResult& load = report.load;
    absl::StrAppend(
        &figure.detail, figure.detail.empty() ? "" : "; ",
        absl::StrFormat("of %d %d were answered, %d generating at once, %.0f "
                        "tokens/s",
                        n, load.n_ok, load.peak_generating,
                        TokensPerSecond(report)));
    if (!load.first_error.empty()) {
      absl::StrAppend(&figure.detail, "; the first error: ", load.first_error);
    }
    if (load.n_ok < n) break;
    figure.measured =
        std::max(figure.measured, static_cast<double>(load.peak_generating));
  }
  Add(figure);
  return absl::OkStatus();
}

absl::Status EngineBench::Idle() {
  Say("4 stages");
  Cluster cluster;
  cluster.n_stages = cluster.n_workers = 4;
  cluster.worker_flags = {"--step_us=40000", "--token_us=0", "--context_ns=0"};
  ASSIGN_OR_RETURN(const ServeReport report, Measure(cluster, {64, 32, 48}));
  EngineFigure figure;
  figure.what = "idle share of the idlest of 4 stages";
  figure.unit = "%";
  figure.decimals = 1;
  figure.more_is_better = false;
  figure.target = 8;
  figure.aim = 3;
  std::vector<std::string> parts;
  for (const StageReport& stage : report.stages) {
    figure.measured = std::max(figure.measured, 100 * stage.idle_share);
    parts.push_back(absl::StrFormat("%.1f", 100 * stage.idle_share));
  }
  figure.detail = absl::StrFormat(
      "%% idle by stage: %s; %.0f tokens/s of the 1600 that "
      "stages of 10 ms allow",
      absl::StrJoin(parts, ", "), TokensPerSecond(report));
  Add(figure);
  return absl::OkStatus();
}

absl::Status EngineBench::Mocks() {
  Cluster one;
  one.worker_flags = {"--step_us=25000", "--token_us=0", "--context_ns=0"};
  Cluster many = one;
  many.n_workers = 16;
  ASSIGN_OR_RETURN(const Compared compared,
                   Compare(one, {32, 32, 128}, many, {16 * 32, 32, 128}));
  EngineFigure figure;
  figure.what = "16 mock workers against 1, 32 streams each";
  figure.unit = "x";
  figure.measured = compared.second / compared.first;
  figure.target = 14;
  figure.aim = 15.5;
  figure.limit = "16 x";
  figure.detail = absl::StrFormat("%.0f and %.0f tokens/s, steps of 25 ms",
                                  compared.first, compared.second);
  Add(figure);
  return absl::OkStatus();
}

absl::Status EngineBench::Depth() {
  Cluster one;
  one.mock = false;
  one.worker_flags = {"--threads=2"};
  Cluster two = one;
  two.n_stages = two.n_workers = 2;
  two.worker_flags = {"--threads=1"};
  const Load load = {16, 96, 64, 16 * requests_};
  ASSIGN_OR_RETURN(const Compared compared, Compare(one, load, two, load));
  EngineFigure figure;
  figure.what = "2 stages of 1 thread against 1 of 2, 16 streams";
  figure.unit = "x";
  figure.measured = compared.second / compared.first;
  figure.target = 0.90;
  figure.aim = 0.97;
  figure.limit = "1 x";
  figure.detail = absl::StrFormat("%.1f and %.1f output tokens/s",
                                  compared.second, compared.first);
  Add(figure);
  return absl::OkStatus();
}

absl::Status EngineBench::Serve() {
  Cluster cluster;
  cluster.mock = false;
  ASSIGN_OR_RETURN(const std::unique_ptr<LocalServers> servers, Start(cluster));
  ASSIGN_OR_RETURN(const v1::Model model, DescribeModel(servers.get()));
  int64_t weight_bytes = 0;
  for (const v1::Pipeline& pipeline : model.pipelines()) {
    for (const v1::Stage& stage : pipeline.stages()) {
      weight_bytes += stage.weight_bytes();
    }
  }
  uint64_t seed = 1;
  // What the first steps alone have to do.
  RETURN_IF_ERROR(Send({1, 96, 4, 1, seed}, servers.get()).status());
  for (const int n : {1, 4, 16}) {
    Say(absl::StrCat(n, n == 1 ? " client" : " clients"));
    // Prompts of their own, so that none is in the prefix cache.
    ASSIGN_OR_RETURN(const ServeReport report,
                     Send({n, 96, 64, n * requests_, ++seed}, servers.get()));
    EngineFigure figure;
    figure.what = absl::StrCat("output of ", n, n == 1 ? " client" : " clients",
                               ", 96 in, 64 out");
    figure.unit = "tokens/s";
    figure.decimals = 1;
    figure.measured = TokensPerSecond(report);
    if (n == 1 && weight_bytes > 0) {
      figure.limit =
          absl::StrFormat("%.1f tokens/s: %.0f MB of weights a token",
                          ReadBandwidth() / static_cast<double>(weight_bytes),
                          static_cast<double>(weight_bytes) / 1e6);
    }
    Add(figure);
    if (n < 16) continue;
    EngineFigure first;
    first.what = "their first token, median";
    first.unit = "s";
    first.measured = report.ttft_ms.p50 / 1e3;
    first.more_is_better = false;
    Add(first);
    EngineFigure gap;
    gap.what = "their gap between tokens, p99 / p50";
    gap.unit = "x";
    gap.measured =
        report.gap_ms.p50 > 0 ? report.gap_ms.p99 / report.gap_ms.p50 : 0;
    gap.more_is_better = false;
    gap.detail = absl::StrFormat("%.1f ms and %.1f ms", report.gap_ms.p99,
                                 report.gap_ms.p50);
    Add(gap);
  }
  return servers->Stop().status();
}

absl::Status EngineBench::Replicas() {
  EngineFigure figure;
  figure.what = "2 workers on a core each against 1, 16 streams each";
  figure.unit = "x";
  figure.target = 1.8;
  figure.aim = 1.95;
  const std::vector<int> cpus = CpusOfCores();
  if (cpus.size() < 2) {
    figure.skipped = "this process may use one core; two are needed";
    Add(figure);
    return absl::OkStatus();
  }
  Cluster one;
  one.mock = false;
  one.worker_flags = {"--threads=1"};
  one.worker_cpus = {cpus[0]};
  Cluster two = one;
  two.n_workers = 2;
  two.worker_cpus = {cpus[0], cpus[1]};
  ASSIGN_OR_RETURN(const Compared compared,
                   Compare(one, {16, 96, 64, 16 * requests_}, two,
                           {32, 96, 64, 32 * requests_}));
  figure.measured = compared.second / compared.first;
  figure.limit = absl::StrFormat(
      "all cores: %.2f x the multiply-adds, %.2f x the bandwidth of one",
      Median(multiply_adds_) / std::max(1.0, Median(multiply_adds_1_)),
      Median(bandwidths_) / std::max(1.0, Median(bandwidths_1_)));
  figure.detail = absl::StrFormat(
      "%.1f and %.1f output tokens/s; coordinator and load generator share the "
      "machine",
      compared.second, compared.first);
  Add(figure);
  return absl::OkStatus();
}

absl::Status EngineBench::Arrival() {
  EngineFigure figure;
  figure.what = "p99 gap of 4 streams while 3,000 tokens arrive";
  figure.unit = "x";
  figure.more_is_better = false;
  figure.target = 2;
  figure.aim = 1.3;
  Cluster cluster;
  cluster.mock = false;
  ASSIGN_OR_RETURN(const std::unique_ptr<LocalServers> servers, Start(cluster));
  ASSIGN_OR_RETURN(const v1::Model model, DescribeModel(servers.get()));
  if (model.context_length() < kContextOfArrival) {
    figure.skipped = absl::StrCat(
        "the model's context holds ", model.context_length(),
        " tokens; give a --model_file with at least ", kContextOfArrival);
    Add(figure);
    return servers->Stop().status();
  }
  std::vector<double> alone, beside;
  uint64_t seed = 0;
  for (int round = 0; round < rounds_; ++round) {
    Say(absl::StrCat("round ", round + 1, " of ", rounds_));
    const auto streams = [&seed] {
      return Load{4, 16, 160, /*n_requests=*/4, ++seed};
    };
    ASSIGN_OR_RETURN(const ServeReport without, Send(streams(), servers.get()));
    alone.push_back(without.gap_ms.p99);
    // One prompt after the other, for as long as the streams go on.
    Cancellation enough;
    absl::StatusOr<ServeReport> arriving = absl::UnknownError("not sent");
    const Load prompts = {1, 3000, 1, /*n_requests=*/1000, ++seed};
    std::thread sender(
        [&] { arriving = Send(prompts, servers.get(), &enough); });
    const absl::StatusOr<ServeReport> with = Send(streams(), servers.get());
    enough.Cancel();
    sender.join();
    RETURN_IF_ERROR(with.status());
    // It is cancelled, even before its first call.
    if (!arriving.ok() && !absl::IsCancelled(arriving.status())) {
      return arriving.status();
    }
    beside.push_back(with->gap_ms.p99);
  }
  if (Median(alone) <= 0) {
    return absl::DeadlineExceededError("the streams brought no tokens");
  }
  figure.measured = Median(beside) / Median(alone);
  figure.detail = absl::StrFormat("%.1f ms against %.1f ms without",
                                  Median(beside), Median(alone));
  Add(figure);
  return servers->Stop().status();
}

absl::StatusOr<std::set<std::string>> RowsFromFlag() {
  const std::vector<std::string> names = EngineBench::Names();
  const std::string flag = absl::GetFlag(FLAGS_rows);
  if (flag.empty()) return std::set<std::string>(names.begin(), names.end());
  std::set<std::string> rows;
  for (const std::string& row :
       std::vector<std::string>(absl::StrSplit(flag, ','))) {
    if (std::find(names.begin(), names.end(), row) == names.end()) {
      return Wrong("rows", absl::StrCat("has \"", row, "\"; there are ",
                                        absl::StrJoin(names, ", ")));
    }
    rows.insert(row);
  }
  return rows;
}

absl::Status Run() {
  ASSIGN_OR_RETURN(const std::set<std::string> rows, RowsFromFlag());
  if (absl::GetFlag(FLAGS_rounds) < 1 || absl::GetFlag(FLAGS_rounds) > 100) {
    return Wrong("rounds", absl::StrCat("is ", absl::GetFlag(FLAGS_rounds),
                                        "; it must be in [1, 100]"));
  }
  if (absl::GetFlag(FLAGS_requests) < 1) {
    return Wrong("requests", "must be at least 1");
  }
  if (absl::GetFlag(FLAGS_duration) < absl::Milliseconds(100)) {
    return Wrong("duration", "must be at least 100ms");
  }
  std::string model_file = absl::GetFlag(FLAGS_model_file);
  if (model_file.empty()) model_file = absl::GetFlag(FLAGS_mock_model_file);
  for (const std::string& path :
       {model_file, absl::GetFlag(FLAGS_mock_model_file)}) {
    if (access(path.c_str(), R_OK) == 0) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("there is no model at ", path,
                     "; run this in the source tree, or give --model_file and "
                     "--mock_model_file"));
  }
  const std::string json = absl::GetFlag(FLAGS_json);
  if (!json.empty() && !std::ofstream(json, std::ios::app)) {
    return Wrong("json", absl::StrCat("cannot be written: ", json));
  }
  ASSIGN_OR_RETURN(const EngineReport report,
                   EngineBench(model_file).Run(rows));
  std::cout << TextOf(report);
  if (json.empty()) return absl::OkStatus();
  std::ofstream file(json, std::ios::trunc);
  file << JsonOf(report);
  file.close();
  if (file) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat("cannot write ", json));
}

ExitCode Main() {
  const absl::Status status = Run();
  if (absl::IsInvalidArgument(status)) {
    return ReportUsage("bench engine", std::string(status.message()));
  }
  return Report(status, "a cluster of its own");
}

}  // namespace
}  // namespace tern

int main(int argc, char** argv) {
  // Before any other thread starts.
  tern::BlockShutdownSignals();
  setenv("GRPC_VERBOSITY", "NONE", /*overwrite=*/0);
  tern::ParseServerFlags(argc, argv, tern::kUsage, {"bench/engine_bench.cc"});
  return tern::Main();
}
