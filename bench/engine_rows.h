#ifndef BENCH_ENGINE_ROWS_H_
#define BENCH_ENGINE_ROWS_H_

#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "bench/engine_report.h"
#include "bench/local_servers.h"
#include "bench/serve_report.h"
#include "bench/statistics.h"
#include "cli/progress_line.h"
#include "client/cancellation.h"
#include "client/client.h"
#include "proto/tern/v1/inference.pb.h"

namespace tern {

// Output tokens of a load.
double TokensPerSecond(const ServeReport& report);

// One processor of each core that this process may use.
std::vector<int> CpusOfCores();

// Measures the rows of `tern bench engine`, on clusters of its own on this
// machine; the program says what they are. Not thread-safe.
class EngineBench {
 public:
  struct Options {
    std::string model_file;                       // of rows with real workers
    std::string mock_model_file;                  // of the others
    absl::Duration duration = absl::Seconds(10);  // of a load of mock workers
    int requests = 3;  // that each client of real workers sends
    int rounds = 3;    // of what is compared
    std::vector<int> held_streams = {5000, 20000};  // ascending
    absl::Duration wait = absl::Minutes(3);         // for workers that load
  };

  explicit EngineBench(Options options) : options_(std::move(options)) {}

  // Measures the rows of these names, in order.
  absl::StatusOr<EngineReport> Run(const std::set<std::string>& names);

  static std::vector<std::string> Names();

 private:
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
    // Of its streams; below a second.
    absl::Duration resume_window = absl::ZeroDuration();
  };

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
  absl::Status Journal();
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

  const Options options_;
  EngineReport report_;
  std::string row_;  // being measured
  bool real_ = false;
  ProgressLine progress_;

  // Of all processors, and of one; see MachinePeaks.
  std::vector<double> bandwidths_, bandwidths_1_, multiply_adds_,
      multiply_adds_1_;
};

}  // namespace tern

#endif  // BENCH_ENGINE_ROWS_H_
