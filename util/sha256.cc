#include "util/sha256.h"

#include <openssl/evp.h>

#include "absl/strings/escaping.h"
#include "util/logging.h"

namespace tern {

struct Sha256Stream::Context {
  EVP_MD_CTX* evp = EVP_MD_CTX_new();
  ~Context() { EVP_MD_CTX_free(evp); }
};

// The library fails for want of memory alone.
Sha256Stream::Sha256Stream() : context_(std::make_unique<Context>()) {
  CHECK(context_->evp != nullptr);
  CHECK(EVP_DigestInit_ex(context_->evp, EVP_sha256(), nullptr) == 1);
}

Sha256Stream::~Sha256Stream() = default;

void Sha256Stream::Add(const void* data, size_t size) {
  CHECK(EVP_DigestUpdate(context_->evp, data, size) == 1);
}

Sha256Digest Sha256Stream::Finish() {
  Sha256Digest digest;
  CHECK(EVP_DigestFinal_ex(context_->evp, digest.data(), nullptr) == 1);
  CHECK(EVP_DigestInit_ex(context_->evp, EVP_sha256(), nullptr) == 1);
  return digest;
}

Sha256Digest Sha256(const void* data, size_t size) {
  Sha256Stream stream;
  stream.Add(data, size);
  return stream.Finish();
}

std::string Sha256Text(const Sha256Digest& digest) {
  return absl::BytesToHexString(absl::string_view(
      reinterpret_cast<const char*>(digest.data()), digest.size()));
}

bool ParseSha256(absl::string_view text, Sha256Digest* digest) {
  if (text.size() != 2 * digest->size()) return false;
  const auto value = [](char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return -1;
  };
  for (size_t i = 0; i < digest->size(); ++i) {
    const int high = value(text[2 * i]);
    const int low = value(text[2 * i + 1]);
    if (high < 0 || low < 0) return false;
    (*digest)[i] = static_cast<uint8_t>(16 * high + low);
  }
  return true;
}

}  // namespace tern
