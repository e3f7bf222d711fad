#ifndef UTIL_DEV_CERTS_H_
#define UTIL_DEV_CERTS_H_

#include <string>

#include "util/credentials.h"

namespace tern {

// Certificates for tests, made by scripts/dev_certs in a folder of their own
// under the test's temporary folder. Needs the program openssl.
class DevCerts {
 public:
  // Makes a new authority and a certificate for each role. Ends the test's
  // process when that fails.
  DevCerts();

  // Credentials of "coordinator", "worker" or "client", whose principals are
  // called "tern-" and that.
  CredentialOptions For(const std::string& role) const;

  // The folder, whose files scripts/dev_certs --help lists.
  const std::string& dir() const { return dir_; }

 private:
  std::string dir_;
};

}  // namespace tern

#endif  // UTIL_DEV_CERTS_H_
