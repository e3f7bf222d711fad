#include "bench/local_servers.h"

#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <system_error>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/time.h"
#include "cli/sibling_program.h"
#include "util/status_macros.h"

namespace tern {
namespace {

constexpr absl::Duration kStartTimeout = absl::Seconds(60);
constexpr absl::Duration kStopTimeout = absl::Seconds(15);
constexpr size_t kLogBytesShown = 2000;

absl::StatusOr<std::string> Find(const SiblingProgram& program) {
  const std::vector<std::string> paths = PathsOf(program);
  for (const std::string& path : paths) {
    if (access(path.c_str(), X_OK) == 0) return path;
  }
  return absl::NotFoundError(absl::StrCat(
      "--start_cluster needs the program ", program.name,
      ", which is at none "
      "of ",
      absl::StrJoin(paths, ", "), "; install it there, or build //",
      program.folder, ":", program.name));
}

// Starts a process on one processor. It has the calling thread's, which gets
// its own back.
absl::StatusOr<std::unique_ptr<Process>> StartOn(
    int cpu, const std::vector<std::string>& argv, const std::string& log) {
  cpu_set_t before, one;
  CPU_ZERO(&one);
  CPU_SET(cpu, &one);
  if (sched_getaffinity(0, sizeof(before), &before) != 0 ||
      sched_setaffinity(0, sizeof(one), &one) != 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("cannot start a worker on processor ", cpu, ": ",
                     std::strerror(errno)));
  }
  const absl::Cleanup back = [&before] {
    sched_setaffinity(0, sizeof(before), &before);
  };
  return Process::Start(argv, log);
}

std::string Tail(const Process& process) {
  const std::string log = process.Log();
  return log.substr(log.size() - std::min(log.size(), kLogBytesShown));
}

}  // namespace

absl::StatusOr<std::unique_ptr<LocalServers>> LocalServers::Start(
    const Options& options) {
  std::unique_ptr<LocalServers> servers(new LocalServers(options));
  const absl::Status status = servers->Init();
  if (!status.ok()) {
    return absl::Status(status.code(),
                        absl::StrCat(status.message(), servers->Logs()));
  }
  return servers;
}

absl::Status LocalServers::Init() {
  const Options& options = options_;
  ASSIGN_OR_RETURN(coordinator_program_, Find({"coordinator", "coordinator"}));
  ASSIGN_OR_RETURN(worker_program_, options.mock
                                        ? Find({"mock_worker", "bench"})
                                        : Find({"worker", "worker"}));
  std::error_code no_folder;
  folder_ =
      std::filesystem::temp_directory_path(no_folder) / "tern-bench-XXXXXX";
  if (no_folder || mkdtemp(folder_.data()) == nullptr) {
    folder_.clear();
    return absl::UnavailableError(
        absl::StrCat("cannot make a temporary folder: ", std::strerror(errno)));
  }
  RETURN_IF_ERROR(StartCoordinator("127.0.0.1:0"));
  for (int i = 0; i < (options.mock ? 1 : options.n_workers); ++i) {
    RETURN_IF_ERROR(StartWorker(i));
  }
  return absl::OkStatus();
}

absl::Status LocalServers::StartCoordinator(const std::string& listen) {
  const std::string port_file = folder_ + "/coordinator.port";
  unlink(port_file.c_str());
  std::vector<std::string> argv = {
      coordinator_program_, absl::StrCat("--listen=", listen),
      absl::StrCat("--model=", options_.model_file),
      absl::StrCat("--stages=", options_.n_stages),
      absl::StrCat("--port_file=", port_file)};
  if (options_.journal) {
    argv.push_back(absl::StrCat("--journal_dir=", folder_, "/journal"));
  }
  argv.insert(argv.end(), options_.coordinator_flags.begin(),
              options_.coordinator_flags.end());
  ASSIGN_OR_RETURN(coordinator_,
                   Process::Start(argv, folder_ + "/coordinator.log"));
  ASSIGN_OR_RETURN(const std::string port,
                   WaitForFile(port_file, coordinator_.get(), kStartTimeout));
  address_ = absl::StrCat("127.0.0.1:", port.substr(0, port.find('\n')));
  return absl::OkStatus();
}

absl::Status LocalServers::RestartCoordinator() {
  coordinator_->Signal(SIGKILL);
  RETURN_IF_ERROR(coordinator_->Wait(kStopTimeout).status());
  return StartCoordinator(address_);
}

absl::Status LocalServers::StartWorker(int index) {
  std::vector<std::string> argv = {
      worker_program_, absl::StrCat("--coordinator=", address_),
      absl::StrCat("--model=", options_.model_file)};
  if (options_.mock) {
    argv.push_back(absl::StrCat("--workers=", options_.n_workers));
    argv.push_back(absl::StrCat("--stats_file=", folder_, "/stages.json"));
  } else {
    argv.push_back(absl::StrCat("--worker_id=worker-", index));
  }
  argv.insert(argv.end(), options_.worker_flags.begin(),
              options_.worker_flags.end());
  const std::string log = absl::StrCat(folder_, "/worker-", index, ".log");
  const bool anywhere = index >= static_cast<int>(options_.worker_cpus.size());
  if (index >= static_cast<int>(workers_.size())) workers_.resize(index + 1);
  ASSIGN_OR_RETURN(workers_[index],
                   anywhere ? Process::Start(argv, log)
                            : StartOn(options_.worker_cpus[index], argv, log));
  return absl::OkStatus();
}

LocalServers::~LocalServers() {
  workers_.clear();
  coordinator_.reset();
  std::error_code ignored;
  if (!folder_.empty()) std::filesystem::remove_all(folder_, ignored);
}

absl::StatusOr<std::string> LocalServers::Stop() {
  for (const auto& worker : workers_) worker->Signal(SIGTERM);
  for (const auto& worker : workers_) {
    RETURN_IF_ERROR(worker->Wait(kStopTimeout).status());
  }
  coordinator_->Signal(SIGTERM);
  RETURN_IF_ERROR(coordinator_->Wait(kStopTimeout).status());
  if (!options_.mock) return std::string();
  std::ifstream file(folder_ + "/stages.json");
  std::string stages(std::istreambuf_iterator<char>(file), {});
  if (file && !stages.empty()) return stages;
  return absl::UnavailableError(
      absl::StrCat("mock_worker wrote no statistics", Logs()));
}

std::string LocalServers::Logs() const {
  std::string logs;
  if (coordinator_ != nullptr) {
    absl::StrAppend(&logs, "\nlog of the coordinator:\n", Tail(*coordinator_));
  }
  for (const auto& worker : workers_) {
    if (worker == nullptr) continue;
    absl::StrAppend(&logs, "\nlog of a worker:\n", Tail(*worker));
  }
  return logs;
}

}  // namespace tern
