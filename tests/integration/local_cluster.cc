#include "tests/integration/local_cluster.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "tests/integration/raw_call.h"
#include "util/status_macros.h"

namespace tern {
namespace {

constexpr absl::Duration kStartTimeout = absl::Seconds(60);

std::string ScratchFolder() {
  const char* base = getenv("TEST_TMPDIR");
  std::string folder = absl::StrCat(base ? base : "/tmp", "/cluster-XXXXXX");
  return mkdtemp(&folder[0]) ? folder : "";
}

// One that was free a moment ago.
absl::StatusOr<int> FreePort() {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  auto* const any = reinterpret_cast<sockaddr*>(&address);
  const bool found =
      bind(fd, any, size) == 0 && getsockname(fd, any, &size) == 0;
  close(fd);
  if (!found) return absl::UnavailableError("no free port");
  return ntohs(address.sin_port);
}

}  // namespace

absl::StatusOr<std::unique_ptr<LocalCluster>> LocalCluster::Start(
    Options options) {
  std::unique_ptr<LocalCluster> cluster(new LocalCluster(std::move(options)));
  absl::Status status = cluster->Init();
  if (!status.ok()) {
    return absl::Status(
        status.code(),
        absl::StrCat(std::string(status.message()), "\n", cluster->Logs()));
  }
  return cluster;
}

absl::Status LocalCluster::Init() {
  folder_ = ScratchFolder();
  if (folder_.empty()) return absl::InternalError("no scratch folder");
  if (options_.tls) {
    ASSIGN_OR_RETURN(auto maker,
                     Process::Start({"scripts/dev_certs", folder_ + "/certs"},
                                    folder_ + "/certs.log"));
    ASSIGN_OR_RETURN(const int code, maker->Wait(kStartTimeout));
    if (code != 0) return absl::InternalError(maker->Log());
    client_credentials_.ca_file = folder_ + "/certs/ca.pem";
    client_credentials_.cert_file = folder_ + "/certs/client.pem";
    client_credentials_.key_file = folder_ + "/certs/client.key";
  }
  ASSIGN_OR_RETURN(credentials_, Credentials::Create(client_credentials_));
  RETURN_IF_ERROR(StartCoordinator("127.0.0.1:0"));
  if (options_.standby) RETURN_IF_ERROR(StartStandby());

  const int n = options_.workers < 0 ? options_.stages : options_.workers;
  workers_.resize(n);
  for (int i = 0; i < n; ++i) RETURN_IF_ERROR(StartWorker(i));
  if (!options_.wait_until_ready) return absl::OkStatus();
  return WaitUntilReady();
}

absl::Status LocalCluster::StartCoordinator(
    const std::string& listen, const std::vector<std::string>& flags) {
  const std::string port_file = folder_ + "/coordinator.port";
  unlink(port_file.c_str());
  std::vector<std::string> argv = CoordinatorArguments(listen, port_file);
  argv.insert(argv.end(), flags.begin(), flags.end());
  ASSIGN_OR_RETURN(coordinator_,
                   Process::Start(argv, folder_ + "/coordinator.log"));
  ASSIGN_OR_RETURN(const std::string port,
                   WaitForFile(port_file, coordinator_.get(), kStartTimeout));
  server_ = "127.0.0.1:" + port.substr(0, port.find('\n'));
  if (servers_.empty()) servers_ = server_;
  if (options_.proxies) {
    if (coordinator_proxy_ == nullptr) {
      ASSIGN_OR_RETURN(coordinator_proxy_, FaultProxy::Start());
    }
    coordinator_proxy_->SetTarget(server_);
  }
  ASSIGN_OR_RETURN(channel_, credentials_->CreateChannel(server_));
  inference_ = v1::InferenceService::NewStub(channel_);
  cluster_ = v1::ClusterService::NewStub(channel_);
  return absl::OkStatus();
}

std::vector<std::string> LocalCluster::CoordinatorArguments(
    const std::string& listen, const std::string& port_file) const {
  std::vector<std::string> argv = {
      "coordinator/coordinator",
      "--listen=" + listen,
      "--model=" + options_.model,
      absl::StrCat("--stages=", options_.stages),
      "--head_mode=" + options_.head_mode,
      "--port_file=" + port_file,
  };
  for (const std::string& flag : TlsFlags("coordinator")) argv.push_back(flag);
  for (const std::string& flag : options_.coordinator_flags) {
    argv.push_back(flag);
  }
  return argv;
}

// It opens its port when it takes over; the others have to know it before.
absl::Status LocalCluster::StartStandby() {
  ASSIGN_OR_RETURN(const int port, FreePort());
  const std::string server = absl::StrCat("127.0.0.1:", port);
  ASSIGN_OR_RETURN(
      standby_,
      Process::Start(CoordinatorArguments(server, folder_ + "/standby.port"),
                     folder_ + "/standby.log"));
  servers_ = absl::StrCat(server_, ",", server);
  return absl::OkStatus();
}

absl::Status LocalCluster::RestartCoordinator(
    const std::vector<std::string>& flags) {
  coordinator_->Signal(SIGKILL);
  RETURN_IF_ERROR(coordinator_->Wait(absl::Seconds(10)).status());
  return StartCoordinator(server_, flags);
}

LocalCluster::~LocalCluster() {
  // In the sanitizers' builds a process may go on after its report.
  const std::string logs = Logs();
  if (logs.find("Sanitizer") != std::string::npos ||
      logs.find("runtime error:") != std::string::npos) {
    ADD_FAILURE() << "a sanitizer spoke in a process:\n" << logs;
  }
}

std::vector<std::string> LocalCluster::TlsFlags(const std::string& role) const {
  if (!options_.tls) return {};
  const std::string certs = folder_ + "/certs/";
  return {"--tls_ca_file=" + certs + "ca.pem",
          "--tls_cert_file=" + certs + role + ".pem",
          "--tls_key_file=" + certs + role + ".key"};
}

absl::Status LocalCluster::StartWorker(int index,
                                       const std::vector<std::string>& flags) {
  if (index >= static_cast<int>(workers_.size())) workers_.resize(index + 1);
  std::vector<std::string> argv = {
      "worker/worker",
      absl::StrCat("--worker_id=worker-", index),
      "--coordinator=" +
          (options_.proxies ? coordinator_proxy_->address() : servers_),
      "--model=" + options_.model,
      "--threads=1",
  };
  const std::string port_file =
      absl::StrCat(folder_, "/worker-", index, ".port");
  if (options_.proxies) {
    if (index >= static_cast<int>(proxies_.size())) proxies_.resize(index + 1);
    if (proxies_[index] == nullptr) {
      ASSIGN_OR_RETURN(proxies_[index], FaultProxy::Start());
    }
    unlink(port_file.c_str());
    argv.push_back("--port_file=" + port_file);
    argv.push_back("--advertise_address=" + proxies_[index]->address());
  }
  for (const std::string& flag : TlsFlags("worker")) argv.push_back(flag);
  for (const std::string& flag : options_.worker_flags) argv.push_back(flag);
  for (const std::string& flag : flags) argv.push_back(flag);
  ASSIGN_OR_RETURN(
      workers_[index],
      Process::Start(argv, absl::StrCat(folder_, "/worker-", index, ".log")));
  if (!options_.proxies) return absl::OkStatus();
  ASSIGN_OR_RETURN(
      const std::string port,
      WaitForFile(port_file, workers_[index].get(), kStartTimeout));
  proxies_[index]->SetTarget("127.0.0.1:" + port.substr(0, port.find('\n')));
  return absl::OkStatus();
}

absl::Status LocalCluster::WaitUntilReady(bool ready, absl::Duration timeout) {
  return WaitForHealth(channel_, "readiness", ready, timeout);
}

std::string LocalCluster::Logs() const {
  std::string logs;
  if (coordinator_) logs = "coordinator:\n" + coordinator_->Log();
  if (standby_) absl::StrAppend(&logs, "standby:\n", standby_->Log());
  for (size_t i = 0; i < workers_.size(); ++i) {
    if (!workers_[i]) continue;
    absl::StrAppend(&logs, "worker ", i, ":\n", workers_[i]->Log());
  }
  return logs;
}

}  // namespace tern
