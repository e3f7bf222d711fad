// Rows of mock workers and of the pure core.

#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/time/time.h"
#include "bench/engine_report.h"
#include "bench/engine_rows.h"
#include "bench/load_generator.h"
#include "bench/local_servers.h"
#include "bench/serve_report.h"
#include "cli/sibling_program.h"
#include "nlohmann/json.hpp"
#include "tests/integration/process.h"
#include "util/status_macros.h"

namespace tern {

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
             absl::StrCat("--benchmark_repetitions=", options_.rounds),
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
  for (const int n : options_.held_streams) {
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

// Plain streams, streams that may be resumed, and the same with a journal, in
// turns.
absl::Status EngineBench::Journal() {
  const char* const tmp = std::getenv("TMPDIR");
  std::string folder =
      absl::StrCat(tmp == nullptr ? "/tmp" : tmp, "/tern-journal-XXXXXX");
  if (mkdtemp(folder.data()) == nullptr) {
    return absl::UnavailableError(
        absl::StrCat("cannot make a temporary folder like ", folder));
  }
  Cluster plain;
  plain.max_sequences = 256;
  plain.worker_flags = {"--step_us=20000", "--token_us=0", "--context_ns=0"};
  Cluster journal = plain;
  journal.coordinator_flags = {"--journal_dir=" + folder};
  const Load load = {256, 32, 256};
  Load resumable = load;
  // So short that a cluster has nothing to do with what the one before left.
  resumable.resume_window = absl::Milliseconds(50);
  std::vector<double> throughput[3], cpu[3];
  const auto measure = [&](int i, const Cluster& cluster,
                           const Load& its_load) -> absl::Status {
    ASSIGN_OR_RETURN(const ServeReport report, Measure(cluster, its_load));
    const double n = static_cast<double>(report.load.n_output_tokens);
    if (n == 0 || !report.coordinator_cpu.has_value()) {
      return absl::DeadlineExceededError(
          "no token came in the time that counts; give a longer --duration");
    }
    throughput[i].push_back(TokensPerSecond(report));
    cpu[i].push_back(absl::ToDoubleMicroseconds(report.coordinator_cpu->total) /
                     n);
    return absl::OkStatus();
  };
  const auto measure_all = [&]() -> absl::Status {
    for (int round = 0; round < options_.rounds; ++round) {
      Say(absl::StrCat("round ", round + 1, " of ", options_.rounds));
      RETURN_IF_ERROR(measure(0, plain, load));
      RETURN_IF_ERROR(measure(1, plain, resumable));
      RETURN_IF_ERROR(measure(2, journal, resumable));
    }
    return absl::OkStatus();
  };
  const absl::Status measured = measure_all();
  for (const char* file : {"/requests.journal", "/leader.lock"}) {
    unlink((folder + file).c_str());
  }
  rmdir(folder.c_str());
  RETURN_IF_ERROR(measured);
  EngineFigure figure;
  figure.what = "256 streams with a journal against plain ones";
  figure.unit = "x";
  figure.measured = Median(throughput[2]) / Median(throughput[0]);
  figure.decimals = 3;
  figure.target = 0.98;
  figure.limit = "1 x";
  figure.detail = absl::StrFormat(
      "plain, resumable, with a journal: %.0f, %.0f, %.0f tokens/s; "
      "coordinator CPU a token %.1f, %.1f, %.1f us",
      Median(throughput[0]), Median(throughput[1]), Median(throughput[2]),
      Median(cpu[0]), Median(cpu[1]), Median(cpu[2]));
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

}  // namespace tern
