#include "tests/fuzz/mutations.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <iterator>

namespace tern {

using testing::Bytes;

Bytes Mutated(Bytes bytes, std::mt19937* rng) {
  static const uint64_t kNumbers[] = {0,
                                      1,
                                      31,
                                      33,
                                      0x7f,
                                      0xff,
                                      0xffff,
                                      0x7fffffff,
                                      0x80000000,
                                      0xffffffff,
                                      uint64_t{1} << 48,
                                      uint64_t{1} << 62,
                                      ~uint64_t{0} >> 1,
                                      ~uint64_t{0} - 31,
                                      ~uint64_t{0}};
  for (int n = 1 + (*rng)() % 4; n > 0 && !bytes.empty(); --n) {
    // Most of the sense is in front.
    const size_t reach =
        (*rng)() % 2 == 0 ? bytes.size() : std::min<size_t>(bytes.size(), 600);
    const size_t at = (*rng)() % reach;
    const size_t left = bytes.size() - at;
    switch ((*rng)() % 6) {
      case 0:
        bytes[at] ^= 1 << (*rng)() % 8;
        break;
      case 1:
        bytes[at] = (*rng)();
        break;
      case 2: {
        const uint64_t number = kNumbers[(*rng)() % std::size(kNumbers)];
        const size_t width = (*rng)() % 2 == 0 ? 4 : 8;
        std::memcpy(bytes.data() + at, &number, std::min(width, left));
        break;
      }
      case 3:
        bytes.erase(
            bytes.begin() + at,
            bytes.begin() + at + std::min<size_t>(left, 1 + (*rng)() % 8));
        break;
      case 4:
        bytes.insert(bytes.begin() + at, 1 + (*rng)() % 8, (*rng)());
        break;
      case 5: {
        const size_t from = (*rng)() % bytes.size();
        const size_t size =
            std::min({left, bytes.size() - from, size_t{1} + (*rng)() % 16});
        std::memmove(bytes.data() + at, bytes.data() + from, size);
        break;
      }
    }
  }
  if ((*rng)() % 16 == 0) bytes.resize((*rng)() % (bytes.size() + 1));
  return bytes;
}

}  // namespace tern
