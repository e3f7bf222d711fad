#include "util/credentials.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "grpcpp/client_context.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/security/credentials.h"
#include "grpcpp/server.h"
#include "gtest/gtest.h"
#include "proto/tern/v1/inference.grpc.pb.h"
#include "util/dev_certs.h"
#include "util/grpc_status.h"

namespace tern {
namespace {

constexpr absl::Duration kPatience = absl::Seconds(30);

// Tells each caller who it is, as the name of a model. `allowed`, when given,
// are the only ones to be told.
class WhoAmI final : public v1::InferenceService::Service {
 public:
  explicit WhoAmI(const Credentials* credentials,
                  std::vector<std::string> allowed = {})
      : credentials_(credentials), allowed_(std::move(allowed)) {}

  grpc::Status ListModels(grpc::ServerContext* context,
                          const v1::ListModelsRequest* request,
                          v1::ListModelsResponse* response) override {
    if (!allowed_.empty()) {
      const absl::Status status = credentials_->CheckCaller(*context, allowed_);
      if (!status.ok()) return ToGrpcStatus(status);
    }
    response->add_models()->set_name(credentials_->PrincipalOf(*context).name);
    return grpc::Status::OK;
  }

 private:
  const Credentials* const credentials_;
  const std::vector<std::string> allowed_;
};

std::unique_ptr<Credentials> MustCreate(const CredentialOptions& options) {
  auto credentials = Credentials::Create(options);
  EXPECT_TRUE(credentials.ok()) << credentials.status();
  return std::move(credentials).value();
}

// A server of WhoAmI on a port of loopback.
class TestServer {
 public:
  explicit TestServer(const CredentialOptions& options,
                      std::vector<std::string> allowed = {},
                      const std::string& listen = "127.0.0.1:0")
      : credentials_(MustCreate(options)),
        service_(credentials_.get(), std::move(allowed)) {
    grpc::ServerBuilder builder;
    EXPECT_TRUE(credentials_->AddListeningPort(listen, &builder, &port_).ok());
    builder.RegisterService(&service_);
    server_ = builder.BuildAndStart();
    EXPECT_NE(server_, nullptr);
  }
  ~TestServer() { server_->Shutdown(); }

  int port() const { return port_; }
  std::string address() const { return absl::StrCat("127.0.0.1:", port_); }

 private:
  std::unique_ptr<Credentials> credentials_;
  WhoAmI service_;
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
};

absl::StatusOr<std::string> AskOn(std::shared_ptr<grpc::Channel> channel) {
  auto stub = v1::InferenceService::NewStub(channel);
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(absl::Now() + kPatience));
  v1::ListModelsResponse response;
  const grpc::Status status = stub->ListModels(&context, {}, &response);
  if (!status.ok()) return FromGrpcStatus(status);
  return response.models(0).name();
}

// Who `server` says that a client of these credentials is.
absl::StatusOr<std::string> Ask(const TestServer& server,
                                const CredentialOptions& client,
                                const std::string& peer_name = "") {
  auto credentials = MustCreate(client);
  auto channel = credentials->CreateChannel(server.address(), peer_name);
  if (!channel.ok()) return channel.status();
  return AskOn(*channel);
}

void MustRun(const std::string& command) {
  ASSERT_EQ(std::system(command.c_str()), 0) << command;
}

// An IPv4 address of this machine that is not loopback, or nothing.
std::string AddressBeyondLoopback() {
  ifaddrs* list = nullptr;
  if (getifaddrs(&list) != 0) return "";
  std::string found;
  for (const ifaddrs* i = list; i != nullptr && found.empty();
       i = i->ifa_next) {
    if (i->ifa_addr == nullptr || i->ifa_addr->sa_family != AF_INET) continue;
    char text[INET_ADDRSTRLEN];
    const auto* address = reinterpret_cast<const sockaddr_in*>(i->ifa_addr);
    if (inet_ntop(AF_INET, &address->sin_addr, text, sizeof(text)) != nullptr &&
        !IsLoopback(text)) {
      found = text;
    }
  }
  freeifaddrs(list);
  return found;
}

TEST(Credentials, PlaintextOnLoopbackNeedsNothing) {
  TestServer server({}, {"tern-worker"});
  const auto name = Ask(server, {});
  ASSERT_TRUE(name.ok()) << name.status();
  EXPECT_EQ(*name, "local");
}

TEST(Credentials, PlaintextFromElsewhereIsAnonymous) {
  const std::string own_address = AddressBeyondLoopback();
  if (own_address.empty()) GTEST_SKIP() << "this machine has only loopback";
  CredentialOptions insecure;
  insecure.insecure = true;
  TestServer server(insecure, {}, "0.0.0.0:0");
  auto credentials = MustCreate(insecure);
  auto channel =
      credentials->CreateChannel(absl::StrCat(own_address, ":", server.port()));
  ASSERT_TRUE(channel.ok());
  const auto name = AskOn(*channel);
  ASSERT_TRUE(name.ok()) << name.status();
  EXPECT_EQ(*name, "anonymous");
}

TEST(Credentials, PlaintextBeyondLoopbackIsRefusedUnlessInsecure) {
  auto closed = MustCreate({});
  CredentialOptions options;
  options.insecure = true;
  auto open = MustCreate(options);
  for (const std::string address :
       {"192.0.2.1:7600", "example.org:7600", "0.0.0.0:0", "[::]:0"}) {
    const auto channel = closed->CreateChannel(address);
    EXPECT_EQ(channel.status().code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_TRUE(absl::StrContains(channel.status().message(), address));
    EXPECT_TRUE(absl::StrContains(channel.status().message(), "--insecure"));
    EXPECT_TRUE(open->CreateChannel(address).ok());

    grpc::ServerBuilder builder;
    int port = 0;
    EXPECT_EQ(closed->AddListeningPort(address, &builder, &port).code(),
              absl::StatusCode::kFailedPrecondition);
    EXPECT_TRUE(open->AddListeningPort(address, &builder, &port).ok());
  }
}

TEST(Credentials, ATakenPortIsAnError) {
  TestServer first({});
  auto credentials = MustCreate({});
  WhoAmI service(credentials.get());
  grpc::ServerBuilder builder;
  int port = 0;
  ASSERT_TRUE(
      credentials->AddListeningPort(first.address(), &builder, &port).ok());
  builder.RegisterService(&service);
  EXPECT_EQ(builder.BuildAndStart(), nullptr);
}

TEST(Credentials, ThePrincipalIsTheCommonNameOfTheCertificate) {
  DevCerts certs;
  TestServer server(certs.For("coordinator"));
  for (const std::string role : {"worker", "client"}) {
    const auto name = Ask(server, certs.For(role));
    ASSERT_TRUE(name.ok()) << name.status();
    EXPECT_EQ(*name, "tern-" + role);
  }
}

TEST(Credentials, TheServerMustBeTheOneExpected) {
  DevCerts certs;
  TestServer server(certs.For("worker"));
  EXPECT_TRUE(Ask(server, certs.For("coordinator"), kWorkerName).ok());
  const auto name = Ask(server, certs.For("client"), kCoordinatorName);
  EXPECT_EQ(name.status().code(), absl::StatusCode::kUnavailable);
}

TEST(Credentials, OnlyTheAllowedCallersPass) {
  DevCerts certs;
  TestServer server(certs.For("coordinator"), {"tern-worker"});
  EXPECT_TRUE(Ask(server, certs.For("worker")).ok());
  const auto name = Ask(server, certs.For("client"));
  EXPECT_EQ(name.status().code(), absl::StatusCode::kPermissionDenied);
  EXPECT_TRUE(absl::StrContains(name.status().message(), "tern-client"));
}

// gRPC reports every failed handshake as UNAVAILABLE, whatever its cause.
TEST(Credentials, PlaintextClientsDoNotReachATlsServer) {
  DevCerts certs;
  TestServer server(certs.For("coordinator"));
  EXPECT_EQ(Ask(server, {}).status().code(), absl::StatusCode::kUnavailable);
}

TEST(Credentials, ClientsWithoutACertificateDoNotReachATlsServer) {
  DevCerts certs;
  TestServer server(certs.For("coordinator"));
  std::ifstream file(certs.For("client").ca_file);
  grpc::SslCredentialsOptions only_ca;
  only_ca.pem_root_certs = {std::istreambuf_iterator<char>(file), {}};
  const auto name = AskOn(
      grpc::CreateChannel(server.address(), grpc::SslCredentials(only_ca)));
  EXPECT_EQ(name.status().code(), absl::StatusCode::kUnavailable);
}

TEST(Credentials, CertificatesOfAnotherAuthorityAreRefusedBothWays) {
  DevCerts ours, theirs;
  TestServer server(ours.For("coordinator"));
  CredentialOptions impostor = theirs.For("worker");
  EXPECT_EQ(Ask(server, impostor).status().code(),
            absl::StatusCode::kUnavailable);
  // Even when the impostor trusts the server.
  impostor.ca_file = ours.For("worker").ca_file;
  EXPECT_EQ(Ask(server, impostor).status().code(),
            absl::StatusCode::kUnavailable);
}

TEST(Credentials, ExpiredCertificatesAreRefused) {
  DevCerts certs;
  MustRun(absl::StrCat(
      "cd ", certs.dir(),
      " && openssl req -new -key worker.key -subj /CN=tern-worker -out w.csr "
      "&& openssl x509 -req -days -1 -in w.csr -CA ca.pem -CAkey ca.key "
      "-set_serial 7 -out worker.pem 2> /dev/null"));
  TestServer server(certs.For("coordinator"));
  EXPECT_TRUE(Ask(server, certs.For("client")).ok());
  EXPECT_EQ(Ask(server, certs.For("worker")).status().code(),
            absl::StatusCode::kUnavailable);
}

TEST(Credentials, SomeOfTheFilesAreNotEnough) {
  DevCerts certs;
  const CredentialOptions all = certs.For("worker");
  for (int missing = 0; missing < 3; ++missing) {
    CredentialOptions some = all;
    (missing == 0   ? some.ca_file
     : missing == 1 ? some.cert_file
                    : some.key_file)
        .clear();
    EXPECT_EQ(Credentials::Create(some).status().code(),
              absl::StatusCode::kInvalidArgument);
  }
}

TEST(Credentials, FilesThatCannotBeReadAreNamed) {
  DevCerts certs;
  CredentialOptions options = certs.For("worker");
  options.key_file = certs.dir() + "/nowhere.key";
  const absl::Status status = Credentials::Create(options).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_TRUE(absl::StrContains(status.message(), options.key_file));
}

TEST(Credentials, AKeyOfAnotherCertificateIsRefused) {
  DevCerts certs;
  CredentialOptions options = certs.For("worker");
  options.key_file = certs.For("client").key_file;
  const absl::Status status = Credentials::Create(options).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(absl::StrContains(status.message(), options.key_file));
}

TEST(Credentials, FilesThatAreNotPemAreRefused) {
  DevCerts certs;
  const std::string garbage = certs.dir() + "/garbage.pem";
  std::ofstream(garbage) << "not a certificate";
  for (const bool in_ca : {true, false}) {
    CredentialOptions options = certs.For("worker");
    (in_ca ? options.ca_file : options.cert_file) = garbage;
    const absl::Status status = Credentials::Create(options).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_TRUE(absl::StrContains(status.message(), garbage));
  }
}

TEST(Credentials, RotatedFilesTakeEffectWithoutARestart) {
  namespace fs = std::filesystem;
  DevCerts certs;
  TestServer server(certs.For("coordinator"));

  // A folder behind a link, as Kubernetes mounts a secret, first with the
  // worker's certificate and then with the client's.
  const fs::path dir = certs.dir();
  for (const std::string role : {"worker", "client"}) {
    fs::create_directory(dir / ("as-" + role));
    fs::copy_file(dir / (role + ".pem"), dir / ("as-" + role) / "tls.crt");
    fs::copy_file(dir / (role + ".key"), dir / ("as-" + role) / "tls.key");
  }
  fs::create_directory_symlink(dir / "as-worker", dir / "mounted");
  CredentialOptions options = certs.For("worker");
  options.cert_file = dir / "mounted" / "tls.crt";
  options.key_file = dir / "mounted" / "tls.key";
  options.refresh_interval = absl::Seconds(1);
  auto credentials = MustCreate(options);

  // Each channel connects anew and shows the certificate of that moment.
  const auto ask = [&] {
    auto channel = credentials->CreateChannel(server.address());
    EXPECT_TRUE(channel.ok());
    return AskOn(*channel).value_or("nobody");
  };
  ASSERT_EQ(ask(), "tern-worker");
  fs::create_directory_symlink(dir / "as-client", dir / "mounted.new");
  fs::rename(dir / "mounted.new", dir / "mounted");
  const absl::Time give_up = absl::Now() + kPatience;
  std::string name;
  do {
    name = ask();
  } while (name != "tern-client" && absl::Now() < give_up);
  EXPECT_EQ(name, "tern-client");
}

TEST(IsLoopback, KnowsLoopbackFromEverythingElse) {
  for (const char* address :
       {"127.0.0.1", "127.0.0.1:0", "127.1.2.3:7600", "localhost",
        "LocalHost:7600", "::1", "[::1]", "[::1]:7600", "unix:/tmp/socket",
        "unix:///tmp/socket", "unix-abstract:name"}) {
    EXPECT_TRUE(IsLoopback(address)) << address;
  }
  for (const char* address :
       {"", ":7600", "0.0.0.0:7600", "[::]:7600", "10.0.0.1:7600", "128.0.0.1",
        "localhost.example.org:7600", "127.0.0.1.example.org", "[::1]x", "[::1",
        "[::2]:7600", "dns:///example.org:7600", "127.0.0.1:7600,10.0.0.1:7600",
        "localhost:7600/elsewhere", "ipv4:127.0.0.1:1,10.0.0.1:2",
        "tern-coordinator:7600"}) {
    EXPECT_FALSE(IsLoopback(address)) << address;
  }
}

}  // namespace
}  // namespace tern
