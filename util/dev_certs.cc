#include "util/dev_certs.h"

#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "util/logging.h"

namespace tern {

DevCerts::DevCerts() {
  std::string pattern = absl::StrCat(testing::TempDir(), "/certs-XXXXXX");
  CHECK(mkdtemp(pattern.data()) != nullptr) << pattern;
  dir_ = pattern;
  const char* root = std::getenv("TEST_SRCDIR");
  const char* workspace = std::getenv("TEST_WORKSPACE");
  CHECK(root != nullptr && workspace != nullptr);
  const std::string command = absl::StrCat(
      root, "/", workspace, "/scripts/dev_certs '", dir_, "' > /dev/null");
  CHECK(std::system(command.c_str()) == 0) << command;
}

CredentialOptions DevCerts::For(const std::string& role) const {
  CredentialOptions options;
  options.ca_file = absl::StrCat(dir_, "/ca.pem");
  options.cert_file = absl::StrCat(dir_, "/", role, ".pem");
  options.key_file = absl::StrCat(dir_, "/", role, ".key");
  return options;
}

}  // namespace tern
