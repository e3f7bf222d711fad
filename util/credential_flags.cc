#include "util/credential_flags.h"

#include <string>

#include "absl/flags/flag.h"

ABSL_FLAG(
    std::string, tls_ca_file, "",
    "PEM file with the certificates of the authorities that peers must "
    "come from. Named with the next two, both sides of every connection "
    "prove who they are; without any of the three, traffic is plaintext.");
ABSL_FLAG(std::string, tls_cert_file, "",
          "PEM file with this process's certificate (chain).");
ABSL_FLAG(std::string, tls_key_file, "",
          "PEM file with that certificate's private key.");
ABSL_FLAG(bool, insecure, false,
          "Allows plaintext beyond this machine's loopback addresses, for "
          "anybody on the network to read and to change.");

namespace tern {

CredentialOptions CredentialOptionsFromFlags() {
  CredentialOptions options;
  options.ca_file = absl::GetFlag(FLAGS_tls_ca_file);
  options.cert_file = absl::GetFlag(FLAGS_tls_cert_file);
  options.key_file = absl::GetFlag(FLAGS_tls_key_file);
  options.insecure = absl::GetFlag(FLAGS_insecure);
  return options;
}

}  // namespace tern
