#ifndef COORDINATOR_OS_RANDOM_H_
#define COORDINATOR_OS_RANDOM_H_

#include <cstdint>

namespace tern {

// 64 bits of the operating system's randomness. Thread-safe.
uint64_t OsRandom();

}  // namespace tern

#endif  // COORDINATOR_OS_RANDOM_H_
