#include "util/crc32c.h"

#include <array>
#include <cstring>

#include "util/logging.h"

#if defined(__x86_64__)
#include <nmmintrin.h>
#endif

namespace tern {
namespace {

// The polynomial 0x1EDC6F41 with its bits reversed.
constexpr uint32_t kPolynomial = 0x82F63B78;

// kTables[i][b] is what byte b adds to the checksum when i more bytes follow it
// in the same group of 8.
using Tables = std::array<std::array<uint32_t, 256>, 8>;

constexpr Tables MakeTables() {
  Tables tables{};
  for (uint32_t b = 0; b < 256; ++b) {
    uint32_t crc = b;
    for (int bit = 0; bit < 8; ++bit) {
      crc = (crc >> 1) ^ ((crc & 1) ? kPolynomial : 0);
    }
    tables[0][b] = crc;
  }
  for (size_t i = 1; i < 8; ++i) {
    for (size_t b = 0; b < 256; ++b) {
      const uint32_t before = tables[i - 1][b];
      tables[i][b] = (before >> 8) ^ tables[0][before & 0xff];
    }
  }
  return tables;
}

constexpr Tables kTables = MakeTables();

}  // namespace

namespace internal {

uint32_t Crc32cTable(const void* data, size_t size, uint32_t crc) {
  const auto* p = static_cast<const unsigned char*>(data);
  crc = ~crc;
  // Bytes are addressed one by one, so byte order and alignment do not matter.
  for (; size >= 8; size -= 8, p += 8) {
    crc = kTables[7][p[0] ^ (crc & 0xff)] ^
          kTables[6][p[1] ^ ((crc >> 8) & 0xff)] ^
          kTables[5][p[2] ^ ((crc >> 16) & 0xff)] ^
          kTables[4][p[3] ^ (crc >> 24)] ^ kTables[3][p[4]] ^ kTables[2][p[5]] ^
          kTables[1][p[6]] ^ kTables[0][p[7]];
  }
  for (; size > 0; --size, ++p) {
    crc = (crc >> 8) ^ kTables[0][(crc ^ *p) & 0xff];
  }
  return ~crc;
}

#if defined(__x86_64__)

bool HasCrc32cInstruction() {
  static const bool has = __builtin_cpu_supports("sse4.2");
  return has;
}

// One chain of crc32q: 8 bytes every 3 cycles, about 10 GB/s, which is faster
// than any link that the checksummed bytes travel over.
__attribute__((target("sse4.2"))) uint32_t Crc32cInstruction(const void* data,
                                                             size_t size,
                                                             uint32_t crc) {
  const auto* p = static_cast<const unsigned char*>(data);
  uint64_t state = ~crc;
  for (; size >= 8; size -= 8, p += 8) {
    uint64_t word;
    std::memcpy(&word, p, sizeof(word));
    state = _mm_crc32_u64(state, word);
  }
  auto tail = static_cast<uint32_t>(state);
  for (; size > 0; --size, ++p) tail = _mm_crc32_u8(tail, *p);
  return ~tail;
}

#else

bool HasCrc32cInstruction() { return false; }

uint32_t Crc32cInstruction(const void* data, size_t size, uint32_t crc) {
  CHECK(HasCrc32cInstruction());
  return Crc32cTable(data, size, crc);
}

#endif

}  // namespace internal

uint32_t Crc32c(const void* data, size_t size, uint32_t crc) {
  return internal::HasCrc32cInstruction()
             ? internal::Crc32cInstruction(data, size, crc)
             : internal::Crc32cTable(data, size, crc);
}

}  // namespace tern
