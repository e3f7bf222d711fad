#ifndef UTIL_CRC32C_H_
#define UTIL_CRC32C_H_

#include <cstddef>
#include <cstdint>

namespace tern {

// CRC-32C (Castagnoli, RFC 3720 appendix B.4) of `size` bytes. To go on over
// several pieces, pass the checksum so far as `crc`.
uint32_t Crc32c(const void* data, size_t size, uint32_t crc = 0);

}  // namespace tern

#endif  // UTIL_CRC32C_H_
