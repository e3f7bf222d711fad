#ifndef UTIL_CREDENTIALS_H_
#define UTIL_CREDENTIALS_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "grpcpp/channel.h"
#include "grpcpp/server_builder.h"
#include "grpcpp/server_context.h"

namespace tern {

// Who we are and whom we trust. The one factory of every channel and every
// server port in Tern: nothing else names a gRPC credential type.
//
// With certificates, both sides of every connection prove who they are (mutual
// TLS 1.2 or later), and files are watched, so that rotated certificates take
// effect without a restart. Without them the traffic is plaintext, which is
// allowed between loopback addresses only, unless `insecure` says otherwise.
struct CredentialOptions {
  // PEM files, all three or none.
  std::string ca_file;    // certificates of the CAs that peers must come from
  std::string cert_file;  // our certificate (chain)
  std::string key_file;   // its private key

  // Allows plaintext beyond loopback. Never set by default.
  bool insecure = false;

  // How often the files are looked at for a change, at least a second. A new
  // key and its certificate must appear together, as a renamed directory or a
  // mounted Kubernetes secret does.
  absl::Duration refresh_interval = absl::Seconds(10);
};

// Who makes a call, as the connection proves it. It decides tenant and the
// scope of request ids; a field that a client fills in never does.
struct Principal {
  // Subject common name of the peer's certificate, or its first subject
  // alternative name where it has no common name; "local" for a plaintext
  // loopback peer, "anonymous" for any other plaintext peer.
  std::string name;
};

// Immutable; safe to share between threads.
class Credentials {
 public:
  // INVALID_ARGUMENT when only some of the files are named; NOT_FOUND when one
  // cannot be read; FAILED_PRECONDITION when one is not PEM, or key and
  // certificate do not belong together.
  static absl::StatusOr<std::unique_ptr<Credentials>> Create(
      const CredentialOptions& options);

  ~Credentials();

  // Opens a channel to "host:port". FAILED_PRECONDITION, naming the way out,
  // for plaintext to an address that is not loopback. With TLS the peer's
  // certificate must be valid for `peer_name`; when that is empty, for `host`.
  // Inside a cluster peers are named by role (kCoordinatorName, kWorkerName),
  // because pods come and go with addresses that no certificate knows.
  //
  // Calls on the channel end with UNAVAILABLE while there is no connection, a
  // refused certificate (theirs or ours) included. HTTP proxies named in the
  // environment are not used.
  absl::StatusOr<std::shared_ptr<grpc::Channel>> CreateChannel(
      const std::string& target, const std::string& peer_name = "") const;

  // Adds a listening port to `builder`; *bound_port gets the port once the
  // server has started. FAILED_PRECONDITION as CreateChannel(). A port that is
  // taken makes BuildAndStart() return null.
  absl::Status AddListeningPort(const std::string& address,
                                grpc::ServerBuilder* builder,
                                int* bound_port) const;

  // Who makes the call.
  Principal PrincipalOf(const grpc::ServerContextBase& context) const;

  // OK when the caller is one of `allowed` (names of principals), or plaintext
  // is in use, where nobody can prove anything. PERMISSION_DENIED otherwise.
  absl::Status CheckCaller(const grpc::ServerContextBase& context,
                           absl::Span<const std::string> allowed) const;

  bool uses_tls() const;

 private:
  struct State;
  explicit Credentials(std::unique_ptr<State> state);
  const std::unique_ptr<const State> state_;
};

// Names that the cluster's own certificates carry, as common name and as DNS
// subject alternative name.
inline constexpr char kCoordinatorName[] = "tern-coordinator";
inline constexpr char kWorkerName[] = "tern-worker";
// Of those who may load models and take workers out of service.
inline constexpr char kOperatorName[] = "tern-operator";

// Largest message that any of our channels and servers takes or sends.
inline constexpr int kMessageBytesMax = 16 << 20;

// Whether "host:port" (or a bare host) names this machine's loopback:
// 127.0.0.0/8, [::1], "localhost", or a unix: path.
bool IsLoopback(absl::string_view address);

}  // namespace tern

#endif  // UTIL_CREDENTIALS_H_
