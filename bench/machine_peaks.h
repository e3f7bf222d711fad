#ifndef BENCH_MACHINE_PEAKS_H_
#define BENCH_MACHINE_PEAKS_H_

#include <cstdint>

#include "worker/huge_buffer.h"
#include "worker/thread_pool.h"

namespace tern {

// What the machine can do at most, for kernels to be held against. Measured by
// loops that do nothing else, on the threads of a pool at once. Each call takes
// some tens of milliseconds; other programs disturb it, so that calls belong
// between the measurements they are compared with.
class MachinePeaks {
 public:
  MachinePeaks();

  // Bytes a second at which the threads together read memory, each a range of
  // its own in order, from huge pages.
  double ReadBandwidth(ThreadPool* pool) const;

  // Multiply-adds of int8 a second that the threads together do in registers,
  // by the widest instruction that the kernels use on this CPU: vpdpbusd of 512
  // bits, or vpmaddubsw of 256 with the additions it needs. 0 where neither
  // exists.
  double MultiplyAdds(ThreadPool* pool) const;

 private:
  HugeBuffer buffer_;
};

}  // namespace tern

#endif  // BENCH_MACHINE_PEAKS_H_
