#ifndef UTIL_SHA256_H_
#define UTIL_SHA256_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/strings/string_view.h"

namespace tern {

using Sha256Digest = std::array<uint8_t, 32>;

// SHA-256 (FIPS 180-4) of `size` bytes.
Sha256Digest Sha256(const void* data, size_t size);

// The same of bytes that come piece by piece. Not thread-safe.
class Sha256Stream {
 public:
  Sha256Stream();
  ~Sha256Stream();

  void Add(const void* data, size_t size);
  // Of all that was added; the next Add() begins anew.
  Sha256Digest Finish();

 private:
  struct Context;
  const std::unique_ptr<Context> context_;
};

// As 64 small hexadecimal digits, and back. ParseSha256() is false for anything
// else.
std::string Sha256Text(const Sha256Digest& digest);
bool ParseSha256(absl::string_view text, Sha256Digest* digest);

}  // namespace tern

#endif  // UTIL_SHA256_H_
