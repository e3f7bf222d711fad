#ifndef UTIL_CRC32C_H_
#define UTIL_CRC32C_H_

#include <cstddef>
#include <cstdint>

namespace tern {

// CRC-32C (Castagnoli, RFC 3720 appendix B.4) of `size` bytes. To go on over
// several pieces, pass the checksum so far as `crc`.
uint32_t Crc32c(const void* data, size_t size, uint32_t crc = 0);

namespace internal {

// The two ways to compute it, with the arguments of Crc32c(); for tests.
uint32_t Crc32cTable(const void* data, size_t size, uint32_t crc);

// REQUIRES: HasCrc32cInstruction().
uint32_t Crc32cInstruction(const void* data, size_t size, uint32_t crc);

// Whether this CPU has an instruction for it that we use (SSE4.2).
bool HasCrc32cInstruction();

}  // namespace internal
}  // namespace tern

#endif  // UTIL_CRC32C_H_
