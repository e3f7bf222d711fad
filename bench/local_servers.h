#ifndef BENCH_LOCAL_SERVERS_H_
#define BENCH_LOCAL_SERVERS_H_

#include <sys/types.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "tests/integration/process.h"

namespace tern {

// A coordinator and workers as child processes on free loopback ports, in
// plaintext, with their logs in a temporary folder. They end with this object,
// and with this process. Not thread-safe.
class LocalServers {
 public:
  struct Options {
    // mock_worker in place of workers: one process plays all of them.
    bool mock = false;
    std::string model_file;
    int n_stages = 1;
    int n_workers = 1;
    // Processors of real workers, the first for the first; those beyond the
    // list run anywhere.
    std::vector<int> worker_cpus;
    // Whether the coordinator keeps a journal, in the temporary folder.
    bool journal = false;
    // Come after our own, so that they win.
    std::vector<std::string> coordinator_flags;
    std::vector<std::string> worker_flags;
  };

  // Returns when the coordinator listens; workers register when they can.
  // NOT_FOUND without one of the programs. Errors hold the logs.
  static absl::StatusOr<std::unique_ptr<LocalServers>> Start(
      const Options& options);

  ~LocalServers();

  const std::string& address() const { return address_; }
  pid_t coordinator_pid() const { return coordinator_->pid(); }

  // Kills the coordinator and starts it again on its port.
  absl::Status RestartCoordinator();

  // Starts real worker number `index` (again), under the id "worker-<index>".
  absl::Status StartWorker(int index);
  Process& worker(int index) { return *workers_[index]; }

  // Ends the workers, then the coordinator, in good order. Returns what
  // mock_worker has to say about its stages (its --stats_file, JSON), or
  // nothing for real workers.
  absl::StatusOr<std::string> Stop();

  // The last part of each process's log.
  std::string Logs() const;

 private:
  explicit LocalServers(const Options& options) : options_(options) {}
  absl::Status Init();
  // listen: "host:port"; port 0 picks one.
  absl::Status StartCoordinator(const std::string& listen);

  const Options options_;
  std::string coordinator_program_;
  std::string worker_program_;
  std::string folder_;
  std::string address_;
  std::unique_ptr<Process> coordinator_;
  std::vector<std::unique_ptr<Process>> workers_;
};

}  // namespace tern

#endif  // BENCH_LOCAL_SERVERS_H_
