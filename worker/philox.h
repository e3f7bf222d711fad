#ifndef WORKER_PHILOX_H_
#define WORKER_PHILOX_H_

#include <array>
#include <cstdint>

namespace tern {

// Philox4x64 with 10 rounds: a block of four random words for each counter and
// key, without any state. Pure.
//
// Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as
// 1, 2, 3", SC 2011.
std::array<uint64_t, 4> Philox4x64(std::array<uint64_t, 4> counter,
                                   std::array<uint64_t, 2> key);

}  // namespace tern

#endif  // WORKER_PHILOX_H_
