// Links between real processes go dead: packets vanish, no connection is reset.
//
// The test moves into a network namespace of its own, with a bridge, and puts
// each worker into another one behind a pair of virtual links. Nothing of it
// has a name outside; all of it is gone with this process. Needs the right to
// make namespaces, `ip` and `bridge` (package iproute2), `unshare` and
// `nsenter` (util-linux); without them it is skipped and says so.

#include <sched.h>
#include <stdlib.h>
#include <sys/types.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <functional>
#include <iostream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "grpcpp/channel.h"
#include "grpcpp/client_context.h"
#include "gtest/gtest.h"
#include "proto/tern/v1/cluster.grpc.pb.h"
#include "proto/tern/v1/cluster.pb.h"
#include "proto/tern/v1/inference.grpc.pb.h"
#include "proto/tern/v1/inference.pb.h"
#include "tests/integration/process.h"
#include "util/credentials.h"
#include "util/status_macros.h"

namespace tern {
namespace {

constexpr char kModel[] = "models/demo/shakespeare-demo-i2_s.gguf";
constexpr absl::Duration kPatience = absl::Seconds(60);

// The program's path, or nothing.
std::string PathOf(const std::string& program) {
  for (const char* folder : {"/usr/sbin/", "/usr/bin/", "/sbin/", "/bin/"}) {
    const std::string path = folder + program;
    if (access(path.c_str(), X_OK) == 0) return path;
  }
  return "";
}

std::string Scratch() {
  static const std::string folder = [] {
    const char* base = getenv("TEST_TMPDIR");
    std::string name = absl::StrCat(base ? base : "/tmp", "/netns-XXXXXX");
    return std::string(mkdtemp(&name[0]) ? name : "");
  }();
  return folder;
}

// Runs a program to its end.
absl::Status Execute(std::vector<std::string> argv) {
  argv[0] = PathOf(argv[0]);
  const std::string log = Scratch() + "/run.log";
  ASSIGN_OR_RETURN(const auto process, Process::Start(argv, log));
  ASSIGN_OR_RETURN(const int code, process->Wait(absl::Seconds(20)));
  if (code == 0) return absl::OkStatus();
  std::string line;
  for (const std::string& arg : argv) absl::StrAppend(&line, arg, " ");
  return absl::InternalError(
      absl::StrCat(line, "ended with ", code, ": ", process->Log()));
}

bool WriteFile(const std::string& path, const std::string& text) {
  std::ofstream file(path);
  file << text;
  file.close();
  return static_cast<bool>(file);
}

std::string NamespaceOf(const std::string& process) {
  char link[64] = "";
  const std::string path = absl::StrCat("/proc/", process, "/ns/net");
  return readlink(path.c_str(), link, sizeof(link) - 1) > 0 ? link : "";
}

// Moves this thread, and all threads and processes that it starts, into a
// network of its own. FAILED_PRECONDITION where that is not to be had.
absl::Status EnterNamespace() {
  for (const char* program : {"ip", "bridge", "unshare", "nsenter", "sleep"}) {
    if (PathOf(program).empty()) {
      return absl::FailedPreconditionError(
          absl::StrCat("there is no program `", program,
                       "`; ip and bridge are in the package iproute2"));
    }
  }
  const uid_t uid = geteuid();
  const gid_t gid = getegid();
  if (unshare(uid == 0 ? CLONE_NEWNET : CLONE_NEWNET | CLONE_NEWUSER) != 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("this user may not make network namespaces here: ",
                     std::strerror(errno)));
  }
  if (uid != 0 &&
      (!WriteFile("/proc/self/setgroups", "deny") ||
       !WriteFile("/proc/self/uid_map", absl::StrCat("0 ", uid, " 1")) ||
       !WriteFile("/proc/self/gid_map", absl::StrCat("0 ", gid, " 1")))) {
    return absl::FailedPreconditionError(
        "this user may not map itself into a user namespace here");
  }
  for (const std::vector<std::string>& command :
       std::vector<std::vector<std::string>>{
           {"ip", "link", "set", "lo", "up"},
           {"ip", "link", "add", "br0", "type", "bridge"},
           {"ip", "addr", "add", "10.77.0.1/24", "dev", "br0"},
           {"ip", "link", "set", "br0", "up"}}) {
    const absl::Status status = Execute(command);
    if (!status.ok()) return absl::FailedPreconditionError(status.message());
  }
  return absl::OkStatus();
}

// A network namespace with one link to ours: "v<index>" here, "eth0" there, at
// 10.77.0.<10 + index>.
class Host {
 public:
  static absl::StatusOr<std::unique_ptr<Host>> Create(int index) {
    std::unique_ptr<Host> host(new Host(index));
    RETURN_IF_ERROR(host->Init());
    return host;
  }

  std::string address() const { return absl::StrCat("10.77.0.", 10 + index_); }

  // A program of ours, there.
  absl::StatusOr<std::unique_ptr<Process>> Start(
      const std::vector<std::string>& argv, const std::string& log) const {
    std::vector<std::string> there = Enter();
    there.insert(there.end(), argv.begin(), argv.end());
    there[0] = PathOf(there[0]);
    return Process::Start(there, log);
  }

  // Nothing comes through any more, either way, and nobody is told.
  absl::Status CutLink() const {
    return Execute({"ip", "link", "set", Link(), "down"});
  }
  absl::Status HealLink() const {
    return Execute({"ip", "link", "set", Link(), "up"});
  }
  // Hosts that are isolated reach us and not each other.
  absl::Status Isolate(bool on) const {
    return Execute({"bridge", "link", "set", "dev", Link(), "isolated",
                    on ? "on" : "off"});
  }

 private:
  explicit Host(int index) : index_(index) {}

  std::string Link() const { return absl::StrCat("v", index_); }
  std::vector<std::string> Enter() const {
    return {"nsenter", "--net", "--target", absl::StrCat(holder_->pid())};
  }
  absl::Status RunThere(const std::vector<std::string>& argv) const {
    std::vector<std::string> there = Enter();
    there.push_back(PathOf(argv[0]));
    there.insert(there.end(), argv.begin() + 1, argv.end());
    return Execute(there);
  }

  absl::Status Init() {
    ASSIGN_OR_RETURN(holder_, Process::Start({PathOf("unshare"), "--net",
                                              PathOf("sleep"), "infinity"},
                                             Scratch() + "/holder.log"));
    const std::string pid = absl::StrCat(holder_->pid());
    const absl::Time deadline = absl::Now() + kPatience;
    while (NamespaceOf(pid) == NamespaceOf("self")) {
      if (absl::Now() > deadline || !holder_->running()) {
        return absl::InternalError("no namespace: " + holder_->Log());
      }
    }
    RETURN_IF_ERROR(Execute({"ip", "link", "add", Link(), "type", "veth",
                             "peer", "name", "eth0", "netns", pid}));
    RETURN_IF_ERROR(
        Execute({"ip", "link", "set", Link(), "master", "br0", "up"}));
    RETURN_IF_ERROR(RunThere({"ip", "link", "set", "lo", "up"}));
    RETURN_IF_ERROR(
        RunThere({"ip", "addr", "add", address() + "/24", "dev", "eth0"}));
    return RunThere({"ip", "link", "set", "eth0", "up"});
  }

  const int index_;
  std::unique_ptr<Process> holder_;
};

void SetDeadline(grpc::ClientContext* context) {
  context->set_deadline(absl::ToChronoTime(absl::Now() + kPatience));
}

class NetnsTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    // Before gRPC has threads.
    entered_ = new absl::Status(EnterNamespace());
  }
  static void TearDownTestSuite() { delete entered_; }

  void SetUp() override {
    if (!entered_->ok()) GTEST_SKIP() << entered_->message();
    const absl::Status started = StartCluster();
    ASSERT_TRUE(started.ok()) << started << Logs();
    Read(300, &undisturbed_, [] {});
    ASSERT_EQ(undisturbed_.size(), 300) << Logs();
  }

  // Two stages and a spare.
  absl::Status StartCluster() {
    folder_ = absl::StrCat(Scratch(), "/", ++n_clusters_);
    RETURN_IF_ERROR(Execute({"mkdir", folder_}));
    const std::string port_file = folder_ + "/port";
    ASSIGN_OR_RETURN(
        coordinator_,
        Process::Start({"coordinator/coordinator", "--listen=10.77.0.1:0",
                        "--insecure", absl::StrCat("--model=", kModel),
                        "--stages=2", "--lease=4s", "--port_file=" + port_file},
                       folder_ + "/coordinator.log"));
    ASSIGN_OR_RETURN(std::string port,
                     WaitForFile(port_file, coordinator_.get(), kPatience));
    port = port.substr(0, port.find('\n'));
    for (int i = 0; i < 3; ++i) {
      // Numbers of their own, so that no test meets another's addresses.
      ASSIGN_OR_RETURN(auto host, Host::Create(3 * n_clusters_ + i));
      ASSIGN_OR_RETURN(
          auto worker,
          host->Start({"worker/worker", absl::StrCat("--worker_id=worker-", i),
                       absl::StrCat("--listen=", host->address(), ":0"),
                       "--insecure", "--coordinator=10.77.0.1:" + port,
                       absl::StrCat("--model=", kModel), "--threads=1"},
                      absl::StrCat(folder_, "/worker-", i, ".log")));
      hosts_.push_back(std::move(host));
      workers_.push_back(std::move(worker));
    }
    CredentialOptions insecure;
    insecure.insecure = true;
    ASSIGN_OR_RETURN(credentials_, Credentials::Create(insecure));
    ASSIGN_OR_RETURN(const std::shared_ptr<grpc::Channel> channel,
                     credentials_->CreateChannel("10.77.0.1:" + port));
    inference_ = v1::InferenceService::NewStub(channel);
    cluster_ = v1::ClusterService::NewStub(channel);
    AwaitAllUsable();
    return absl::OkStatus();
  }

  void Read(int n_tokens, std::vector<int32_t>* tokens,
            const std::function<void()>& then) {
    v1::StreamGenerateRequest request;
    request.mutable_request()->set_text("ROMEO:\n");
    request.mutable_request()->mutable_sampling()->set_temperature(0.8f);
    request.mutable_request()->mutable_sampling()->set_seed(3);
    request.mutable_request()->mutable_stopping()->set_max_output_tokens(
        n_tokens);
    request.mutable_request()->mutable_stopping()->set_ignore_end_of_sequence(
        true);
    request.mutable_request()->mutable_response_options()->set_return_token_ids(
        true);
    grpc::ClientContext context;
    SetDeadline(&context);
    auto reader = inference_->StreamGenerate(&context, request);
    v1::StreamGenerateResponse response;
    longest_pause_ = absl::ZeroDuration();
    absl::Time last = absl::Now();
    for (int i = 0; reader->Read(&response); ++i) {
      for (const int32_t id : response.delta().token_ids()) {
        tokens->push_back(id);
      }
      const absl::Time now = absl::Now();
      longest_pause_ = std::max(longest_pause_, now - last);
      last = now;
      if (i == 8) then();
    }
    const grpc::Status status = reader->Finish();
    EXPECT_TRUE(status.ok()) << status.error_message() << Logs();
  }

  void ExpectUndisturbed(const std::function<void()>& then) {
    std::vector<int32_t> tokens;
    Read(300, &tokens, then);
    EXPECT_EQ(tokens, undisturbed_) << Logs();
  }

  v1::ListWorkersResponse Workers() {
    grpc::ClientContext context;
    SetDeadline(&context);
    v1::ListWorkersResponse response;
    EXPECT_TRUE(cluster_->ListWorkers(&context, {}, &response).ok());
    return response;
  }
  // Waits until the workers are so.
  void Await(const std::function<bool(const v1::ListWorkersResponse&)>& are) {
    const absl::Time deadline = absl::Now() + kPatience;
    for (v1::ListWorkersResponse now = Workers(); !are(now); now = Workers()) {
      ASSERT_LT(absl::Now(), deadline) << now.DebugString() << Logs();
    }
  }
  // All three live, two of them with stages.
  void AwaitAllUsable() {
    Await([](const v1::ListWorkersResponse& workers) {
      int n_ready = 0, n_idle = 0;
      for (const v1::Worker& worker : workers.workers()) {
        n_ready += worker.state() == v1::WORKER_STATE_READY;
        n_idle += worker.state() == v1::WORKER_STATE_IDLE;
      }
      return n_ready == 2 && n_idle == 1;
    });
  }
  int Find(const std::function<bool(const v1::Worker&)>& fits) {
    const v1::ListWorkersResponse workers = Workers();
    for (int i = 0; i < workers.workers_size(); ++i) {
      if (fits(workers.workers(i))) return i;
    }
    return -1;
  }
  int HolderOf(int stage) {
    return Find([stage](const v1::Worker& worker) {
      return worker.state() == v1::WORKER_STATE_READY &&
             worker.stage_index() == stage;
    });
  }

  std::string Logs() const {
    std::string logs;
    if (coordinator_) logs = "\ncoordinator:\n" + coordinator_->Log();
    for (const auto& worker : workers_) {
      absl::StrAppend(&logs, "\nworker:\n", worker->Log());
    }
    return logs;
  }

  static absl::Status* entered_;
  static int n_clusters_;
  std::string folder_;
  std::vector<std::unique_ptr<Host>> hosts_;
  std::unique_ptr<Process> coordinator_;
  std::vector<std::unique_ptr<Process>> workers_;
  std::unique_ptr<Credentials> credentials_;
  std::unique_ptr<v1::InferenceService::Stub> inference_;
  std::unique_ptr<v1::ClusterService::Stub> cluster_;
  std::vector<int32_t> undisturbed_;
  absl::Duration longest_pause_;
};

absl::Status* NetnsTest::entered_ = nullptr;
int NetnsTest::n_clusters_ = 0;

// With a stage it is found as one that stands still (2 s and a heartbeat), and
// what it has to say when the link is back is stale.
TEST_F(NetnsTest, AWorkerBehindADeadLinkIsReplacedAndComesBack) {
  for (const int stage : {0, 1}) {
    const int victim = HolderOf(stage);
    ASSERT_GE(victim, 0) << Logs();
    ExpectUndisturbed([&] { EXPECT_TRUE(hosts_[victim]->CutLink().ok()); });
    EXPECT_GT(longest_pause_, absl::Seconds(1));
    EXPECT_LT(longest_pause_, absl::Seconds(6)) << Logs();
    std::cout << "stage " << stage << ": longest pause " << longest_pause_
              << std::endl;
    EXPECT_TRUE(hosts_[victim]->HealLink().ok());
    AwaitAllUsable();
    ExpectUndisturbed([] {});
  }
}

// The coordinator reaches both; the one that waits for the other is replaced.
TEST_F(NetnsTest, ADeadLinkBetweenTwoStagesIsFound) {
  const int first = HolderOf(0);
  const int second = HolderOf(1);
  ASSERT_TRUE(first >= 0 && second >= 0) << Logs();
  ExpectUndisturbed([&] {
    EXPECT_TRUE(hosts_[first]->Isolate(true).ok());
    EXPECT_TRUE(hosts_[second]->Isolate(true).ok());
  });
  EXPECT_GT(longest_pause_, absl::Seconds(1));
  EXPECT_LT(longest_pause_, absl::Seconds(6)) << Logs();
  std::cout << "longest pause " << longest_pause_ << std::endl;
  EXPECT_TRUE(hosts_[first]->Isolate(false).ok());
  EXPECT_TRUE(hosts_[second]->Isolate(false).ok());
  AwaitAllUsable();
  ExpectUndisturbed([] {});
}

// One that owes nothing is lost with its lease.
TEST_F(NetnsTest, ASpareBehindADeadLinkLosesItsLeaseAndComesBack) {
  const int spare = Find([](const v1::Worker& worker) {
    return worker.state() == v1::WORKER_STATE_IDLE;
  });
  ASSERT_GE(spare, 0) << Logs();
  ASSERT_TRUE(hosts_[spare]->CutLink().ok());
  const absl::Time cut = absl::Now();
  Await([spare](const v1::ListWorkersResponse& workers) {
    return workers.workers(spare).state() == v1::WORKER_STATE_LOST;
  });
  EXPECT_LT(absl::Now() - cut, absl::Seconds(6)) << Logs();
  ASSERT_TRUE(hosts_[spare]->HealLink().ok());
  AwaitAllUsable();
}

}  // namespace
}  // namespace tern
