// Rows of real workers.

#include <algorithm>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "bench/engine_report.h"
#include "bench/engine_rows.h"
#include "bench/local_servers.h"
#include "bench/serve_report.h"
#include "client/cancellation.h"
#include "proto/tern/v1/inference.pb.h"
#include "util/status_macros.h"

namespace tern {
namespace {

constexpr int kContextOfArrival = 3200;

}  // namespace

absl::Status EngineBench::Depth() {
  Cluster one;
  one.mock = false;
  one.worker_flags = {"--threads=2"};
  Cluster two = one;
  two.n_stages = two.n_workers = 2;
  two.worker_flags = {"--threads=1"};
  const Load load = {16, 96, 64, 16 * options_.requests};
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
    ASSIGN_OR_RETURN(
        const ServeReport report,
        Send({n, 96, 64, n * options_.requests, ++seed}, servers.get()));
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
                   Compare(one, {16, 96, 64, 16 * options_.requests}, two,
                           {32, 96, 64, 32 * options_.requests}));
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
  for (int round = 0; round < options_.rounds; ++round) {
    Say(absl::StrCat("round ", round + 1, " of ", options_.rounds));
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

}  // namespace tern
