#ifndef BENCH_SURVIVAL_ROWS_H_
#define BENCH_SURVIVAL_ROWS_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "bench/engine_report.h"
#include "bench/local_servers.h"
#include "cli/progress_line.h"
#include "client/client.h"
#include "proto/tern/v1/cluster.pb.h"

namespace tern {

// Measures what a lost, hung or leaving worker costs, row after row, on
// clusters of real processes on this machine; survival_bench.cc says which rows
// there are. Not thread-safe.
class SurvivalBench {
 public:
  struct Options {
    std::string model_file;
    // Whether that is not the demo model: what is wanted depends on its speed.
    bool own_model = false;
    int rounds = 5;                          // each figure is a median of
    int prompt_tokens = 400;                 // of the streams that are lost
    int streams = 32;                        // of the worker that leaves
    absl::Duration wait = absl::Minutes(3);  // for workers that load
  };

  explicit SurvivalBench(Options options) : options_(std::move(options)) {}

  // Measures the rows of these names, in order, and adds "exact": whether every
  // stream had the tokens of an undisturbed one.
  absl::StatusOr<EngineReport> Run(const std::set<std::string>& names);

  static std::vector<std::string> Names();

 private:
  struct Row {
    const char* name;
    absl::Status (SurvivalBench::*measure)();
  };
  static const std::vector<Row>& Rows();

  // What a round found.
  struct Loss {
    absl::Duration detected;
    absl::Duration resumed;  // after it was detected
  };

  // Takes a worker out of service, or puts it back.
  absl::Status Cordon(int worker, bool cordoned);

  // Seconds in which a stream is to go on after a loss is noticed.
  absl::optional<double> ResumeTarget() const;

  absl::Status Death();
  absl::Status Hang();
  absl::Status Replay();
  absl::Status Drain();
  absl::Status Join();
  absl::Status Both();
  absl::Status CoordinatorDeath();

  // Tokens that a stream has, and those that come before something is lost.
  static constexpr int kStreamTokens = 96;
  static constexpr int kStreamTokensBefore = 16;

  absl::Status Start(int n_stages, int n_workers,
                     std::vector<std::string> worker_flags,
                     bool with_journal = false);
  // Two stages and a spare; every round sends `signal` to one of the stages in
  // turn while a stream comes, and `after` brings the worker back.
  absl::StatusOr<std::vector<Loss>> LoseStages(
      int signal, const std::function<absl::Status(int worker)>& after);

  absl::StatusOr<v1::ListWorkersResponse> Workers();
  // Name of the first worker of a pipeline that runs something; empty when none
  // does.
  absl::StatusOr<std::string> BusyWorker();
  // Number of the worker that fits; -1 when none does.
  static int Find(const v1::ListWorkersResponse& workers,
                  const std::function<bool(const v1::Worker&)>& fits);
  // Asks every millisecond until it is true of the workers; when that was.
  absl::StatusOr<absl::Time> Await(
      const std::function<bool(const v1::ListWorkersResponse&)>& is_true);
  // All of `n` workers have a stage, or could have one.
  absl::Status AwaitAll(int n);

  EngineFigure& Add(EngineFigure figure) {
    figure.row = row_;
    return report_.figures.emplace_back(std::move(figure));
  }
  void Say(int round);

  const Options options_;
  EngineReport report_;
  std::string row_;  // being measured
  ProgressLine progress_;
  std::unique_ptr<LocalServers> servers_;
  std::unique_ptr<Client> client_;
  int vocab_size_ = 0;
  int64_t n_compared_ = 0;
  int64_t n_changed_ = 0;
};

}  // namespace tern

#endif  // BENCH_SURVIVAL_ROWS_H_
