#ifndef TESTS_INTEGRATION_LOCAL_CLUSTER_H_
#define TESTS_INTEGRATION_LOCAL_CLUSTER_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "grpcpp/channel.h"
#include "proto/tern/v1/cluster.grpc.pb.h"
#include "proto/tern/v1/inference.grpc.pb.h"
#include "tests/integration/process.h"
#include "tests/testing/fault_proxy.h"
#include "util/credentials.h"

namespace tern {

// A coordinator and workers as real processes on loopback, on free ports, with
// their logs in the test's scratch folder. Everything ends with this object.
// Not thread-safe.
class LocalCluster {
 public:
  struct Options {
    // A GGUF file. Default: the demo model.
    std::string model = "models/demo/shakespeare-demo-i2_s.gguf";
    int stages = 1;
    // Workers to start; -1 for as many as stages.
    int workers = -1;
    std::string head_mode = "int8";
    // Mutual TLS with certificates from scripts/dev_certs.
    bool tls = false;
    std::vector<std::string> coordinator_flags;
    // Starts another coordinator, with the same flags and a port of its own:
    // they need a --journal_dir, so that one of them waits.
    bool standby = false;
    std::vector<std::string> worker_flags;
    // A proxy in front of each worker, whose address the worker tells, and one
    // in front of the coordinator for workers. Not with tls.
    bool proxies = false;
    // Whether Start() waits until the pipeline serves.
    bool wait_until_ready = true;
  };

  // The error, if any, holds the logs.
  static absl::StatusOr<std::unique_ptr<LocalCluster>> Start(Options options);

  // Ends the processes, and fails the test when one of them logged the report
  // of a sanitizer.
  ~LocalCluster();

  // Starts worker number `index` (again), under the id "worker-<index>".
  absl::Status StartWorker(int index,
                           const std::vector<std::string>& flags = {});

  // Kills the coordinator and starts it again on the same port, with these
  // flags behind the others. Channels and stubs from before are of no use any
  // more.
  absl::Status RestartCoordinator(const std::vector<std::string>& flags = {});

  // Waits until the coordinator says that it can (or cannot) serve.
  absl::Status WaitUntilReady(bool ready = true,
                              absl::Duration timeout = absl::Seconds(60));

  // Address of the coordinator; with a standby those of both, separated by a
  // comma.
  const std::string& server() const { return servers_; }
  // What a client of the cluster needs.
  const CredentialOptions& client_credentials() const {
    return client_credentials_;
  }
  // A channel of a client to the coordinator.
  const std::shared_ptr<grpc::Channel>& channel() const { return channel_; }
  v1::InferenceService::Stub& inference() { return *inference_; }
  v1::ClusterService::Stub& cluster() { return *cluster_; }

  Process& coordinator() { return *coordinator_; }
  Process& standby() { return *standby_; }
  Process& worker(int index) { return *workers_[index]; }

  // With `proxies`: of what goes to a worker, from the coordinator and from
  // other workers; and of what workers send to the coordinator.
  FaultProxy& proxy(int worker) { return *proxies_[worker]; }
  FaultProxy& coordinator_proxy() { return *coordinator_proxy_; }

  // Logs of all processes, for messages of failing tests.
  std::string Logs() const;

 private:
  explicit LocalCluster(Options options) : options_(std::move(options)) {}
  absl::Status Init();
  absl::Status StartCoordinator(const std::string& listen,
                                const std::vector<std::string>& flags = {});
  absl::Status StartStandby();
  std::vector<std::string> CoordinatorArguments(
      const std::string& listen, const std::string& port_file) const;
  std::vector<std::string> TlsFlags(const std::string& role) const;

  const Options options_;
  std::string folder_;
  std::string server_;
  std::string servers_;  // for clients and workers
  CredentialOptions client_credentials_;
  std::unique_ptr<Credentials> credentials_;
  // Before the processes, which are to end first.
  std::unique_ptr<FaultProxy> coordinator_proxy_;
  std::vector<std::unique_ptr<FaultProxy>> proxies_;
  std::unique_ptr<Process> coordinator_;
  std::unique_ptr<Process> standby_;
  std::vector<std::unique_ptr<Process>> workers_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::InferenceService::Stub> inference_;
  std::unique_ptr<v1::ClusterService::Stub> cluster_;
};

}  // namespace tern

#endif  // TESTS_INTEGRATION_LOCAL_CLUSTER_H_
