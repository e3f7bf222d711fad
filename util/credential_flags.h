#ifndef UTIL_CREDENTIAL_FLAGS_H_
#define UTIL_CREDENTIAL_FLAGS_H_

#include "util/credentials.h"

namespace tern {

// --tls_ca_file, --tls_cert_file, --tls_key_file and --insecure.
//
// The one library that defines flags: every program of Tern opens channels or
// ports, and their users should find the same four flags with the same words.
// Only a main program may depend on it.
CredentialOptions CredentialOptionsFromFlags();

// The source file that defines them, for FlagsHelp().
inline constexpr char kCredentialFlagsFile[] = "util/credential_flags.cc";

}  // namespace tern

#endif  // UTIL_CREDENTIAL_FLAGS_H_
