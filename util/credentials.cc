#include "util/credentials.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
#include "grpc/grpc.h"
#include "grpc/grpc_security_constants.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/generic/async_generic_service.h"
#include "grpcpp/security/auth_context.h"
#include "grpcpp/security/credentials.h"
#include "grpcpp/security/server_credentials.h"
#include "grpcpp/security/tls_certificate_provider.h"
#include "grpcpp/security/tls_credentials_options.h"
#include "grpcpp/server.h"
#include "grpcpp/support/channel_arguments.h"
#include "util/logging.h"
#include "util/status_macros.h"

namespace tern {
namespace {

// The library shuts itself down with its last channel or server, and crashes
// when that happens on one of its own threads (1.51), where calls, and with them
// the last reference to a channel, may well end. Whoever holds credentials may
// open channels, so it stays until the process ends.
void KeepGrpcRunning() {
  static const bool is_running = [] {
    grpc_init();
    return true;
  }();
  CHECK(is_running);
}

namespace tls = grpc::experimental;

// A peer that vanished without a word is noticed after a ping and its timeout.
// The least interval that servers accept must stay below what clients send, or
// they are thrown out for pinging too much.
constexpr int kPingIntervalMs = 30'000;
constexpr int kPingTimeoutMs = 10'000;
constexpr int kAcceptedPingIntervalMs = 10'000;

// gRPC waits up to two minutes between attempts by default; a restarted peer is
// to be found again within seconds.
constexpr int kReconnectFirstMs = 100;
constexpr int kReconnectMostMs = 2'000;
constexpr int kConnectTimeoutMs = 5'000;

absl::StatusOr<std::string> ReadFile(absl::string_view what,
                                     const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string bytes{std::istreambuf_iterator<char>(file), {}};
  if (!file || bytes.empty()) {
    return absl::NotFoundError(absl::StrCat(
        "cannot read the ", what, " file ", path,
        "; check that it exists, is not empty and that this user may read it"));
  }
  return bytes;
}

// Whether gRPC can make a TLS context of these. It has no call to ask that
// directly, but refuses to add a port without one, so a server that knows no
// method is started on loopback for a moment.
bool AreUsable(const grpc::SslServerCredentialsOptions& pem) {
  grpc::CallbackGenericService nothing;
  grpc::ServerBuilder builder;
  builder.RegisterCallbackGenericService(&nothing);
  builder.AddListeningPort("127.0.0.1:0", grpc::SslServerCredentials(pem));
  return builder.BuildAndStart() != nullptr;
}

// Checked here because the watching provider would log a bad pair and leave
// every handshake to fail.
absl::Status CheckFiles(const CredentialOptions& options) {
  ASSIGN_OR_RETURN(const std::string ca, ReadFile("CA", options.ca_file));
  ASSIGN_OR_RETURN(const std::string cert,
                   ReadFile("certificate", options.cert_file));
  ASSIGN_OR_RETURN(const std::string key, ReadFile("key", options.key_file));
  grpc::SslServerCredentialsOptions pem;
  pem.pem_key_cert_pairs.push_back({key, cert});
  if (!AreUsable(pem)) {
    return absl::FailedPreconditionError(
        absl::StrCat("the key file ", options.key_file,
                     " is not the PEM private key of the certificate in ",
                     options.cert_file));
  }
  pem.pem_root_certs = ca;
  pem.client_certificate_request =
      GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY;
  if (!AreUsable(pem)) {
    return absl::FailedPreconditionError(absl::StrCat(
        "the CA file ", options.ca_file, " holds no PEM certificates"));
  }
  return absl::OkStatus();
}

absl::Status PlaintextRefused(absl::string_view what) {
  return absl::FailedPreconditionError(absl::StrCat(
      what,
      " would send plaintext beyond this machine; name certificates with "
      "--tls_ca_file, --tls_cert_file and --tls_key_file, or allow plaintext "
      "with --insecure"));
}

// "ipv4:127.0.0.1:5", "ipv6:[::1]:5" (its brackets percent-encoded by some
// versions of gRPC) and "unix:..." as IsLoopback() wants them.
std::string AddressOfPeer(absl::string_view peer) {
  std::string address = absl::StrReplaceAll(peer, {{"%5B", "["}, {"%5D", "]"}});
  absl::string_view rest = address;
  if (absl::ConsumePrefix(&rest, "ipv4:") ||
      absl::ConsumePrefix(&rest, "ipv6:")) {
    return std::string(rest);
  }
  return address;
}

std::string FirstProperty(const grpc::AuthContext& auth, const char* name) {
  const std::vector<grpc::string_ref> values = auth.FindPropertyValues(name);
  if (values.empty()) return "";
  return std::string(values[0].data(), values[0].size());
}

}  // namespace

struct Credentials::State {
  bool uses_tls = false;
  bool insecure = false;
  std::shared_ptr<grpc::ChannelCredentials> channel;
  std::shared_ptr<grpc::ServerCredentials> server;
};

Credentials::Credentials(std::unique_ptr<State> state)
    : state_(std::move(state)) {}

Credentials::~Credentials() = default;

absl::StatusOr<std::unique_ptr<Credentials>> Credentials::Create(
    const CredentialOptions& options) {
  KeepGrpcRunning();
  auto state = std::make_unique<State>();
  state->insecure = options.insecure;
  const int named = !options.ca_file.empty() + !options.cert_file.empty() +
                    !options.key_file.empty();
  if (named == 0) {
    state->channel = grpc::InsecureChannelCredentials();
    state->server = grpc::InsecureServerCredentials();
    return std::unique_ptr<Credentials>(new Credentials(std::move(state)));
  }
  if (named < 3) {
    return absl::InvalidArgumentError(
        "TLS needs all three of --tls_ca_file, --tls_cert_file and "
        "--tls_key_file, or none of them");
  }
  RETURN_IF_ERROR(CheckFiles(options));
  const auto interval_s = static_cast<unsigned>(std::clamp<int64_t>(
      absl::ToInt64Seconds(options.refresh_interval), 1, 24 * 3600));
  auto files = std::make_shared<tls::FileWatcherCertificateProvider>(
      options.key_file, options.cert_file, options.ca_file, interval_s);
  state->uses_tls = true;

  tls::TlsChannelCredentialsOptions channel;
  channel.set_certificate_provider(files);
  channel.watch_root_certs();
  channel.watch_identity_key_cert_pairs();
  state->channel = tls::TlsCredentials(channel);

  tls::TlsServerCredentialsOptions server(files);
  server.watch_root_certs();
  server.watch_identity_key_cert_pairs();
  server.set_cert_request_type(
      GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
  state->server = tls::TlsServerCredentials(server);
  return std::unique_ptr<Credentials>(new Credentials(std::move(state)));
}

absl::StatusOr<std::shared_ptr<grpc::Channel>> Credentials::CreateChannel(
    const std::string& target, const std::string& peer_name) const {
  if (!uses_tls() && !state_->insecure && !IsLoopback(target)) {
    return PlaintextRefused(absl::StrCat("a channel to ", target));
  }
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMessageBytesMax);
  arguments.SetMaxSendMessageSize(kMessageBytesMax);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, kPingIntervalMs);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kPingTimeoutMs);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, kReconnectFirstMs);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, kReconnectMostMs);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, kConnectTimeoutMs);
  // A proxy would carry even a loopback channel's plaintext off the machine.
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  if (uses_tls() && !peer_name.empty()) {
    arguments.SetSslTargetNameOverride(peer_name);
  }
  return grpc::CreateCustomChannel(target, state_->channel, arguments);
}

absl::Status Credentials::AddListeningPort(const std::string& address,
                                           grpc::ServerBuilder* builder,
                                           int* bound_port) const {
  if (!uses_tls() && !state_->insecure && !IsLoopback(address)) {
    return PlaintextRefused(absl::StrCat("listening on ", address));
  }
  builder->SetMaxReceiveMessageSize(kMessageBytesMax);
  builder->SetMaxSendMessageSize(kMessageBytesMax);
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, kPingIntervalMs);
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kPingTimeoutMs);
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder->AddChannelArgument(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  builder->AddChannelArgument(
      GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
      kAcceptedPingIntervalMs);
  // Otherwise two servers started by mistake on one port would share it.
  builder->AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder->AddListeningPort(address, state_->server, bound_port);
  return absl::OkStatus();
}

Principal Credentials::PrincipalOf(
    const grpc::ServerContextBase& context) const {
  if (!uses_tls()) {
    return {IsLoopback(AddressOfPeer(context.peer())) ? "local" : "anonymous"};
  }
  const std::shared_ptr<const grpc::AuthContext> auth = context.auth_context();
  CHECK(auth != nullptr);
  std::string name = FirstProperty(*auth, GRPC_X509_CN_PROPERTY_NAME);
  if (name.empty()) name = FirstProperty(*auth, GRPC_X509_SAN_PROPERTY_NAME);
  return {std::move(name)};
}

absl::Status Credentials::CheckCaller(
    const grpc::ServerContextBase& context,
    absl::Span<const std::string> allowed) const {
  if (!uses_tls()) return absl::OkStatus();
  const Principal caller = PrincipalOf(context);
  if (std::find(allowed.begin(), allowed.end(), caller.name) != allowed.end()) {
    return absl::OkStatus();
  }
  return absl::PermissionDeniedError(
      absl::StrCat("this call is for ", absl::StrJoin(allowed, ", "),
                   "; the caller's certificate is of \"", caller.name, "\""));
}

bool Credentials::uses_tls() const { return state_->uses_tls; }

bool IsLoopback(absl::string_view address) {
  if (absl::StartsWith(address, "unix:") ||
      absl::StartsWith(address, "unix-abstract:")) {
    return true;
  }
  absl::string_view host = address;
  absl::string_view port;
  if (absl::ConsumePrefix(&host, "[")) {
    const size_t end = host.find(']');
    if (end == absl::string_view::npos) return false;
    port = host.substr(end + 1);
    host = host.substr(0, end);
  } else if (std::count(host.begin(), host.end(), ':') == 1) {
    const size_t colon = host.find(':');
    port = host.substr(colon);
    host = host.substr(0, colon);
  }
  // Anything else after the host could be a form of gRPC target whose host we
  // did not see.
  if (!port.empty() && (!absl::ConsumePrefix(&port, ":") ||
                        !std::all_of(port.begin(), port.end(), [](char c) {
                          return absl::ascii_isdigit(c);
                        }))) {
    return false;
  }
  if (absl::EqualsIgnoreCase(host, "localhost")) return true;
  const std::string text(host);
  in_addr v4;
  if (inet_pton(AF_INET, text.c_str(), &v4) == 1) {
    return (ntohl(v4.s_addr) >> 24) == 127;
  }
  in6_addr v6;
  return inet_pton(AF_INET6, text.c_str(), &v6) == 1 &&
         IN6_IS_ADDR_LOOPBACK(&v6);
}

}  // namespace tern
