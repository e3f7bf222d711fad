#ifndef KERNELS_CUDA_TERNARY_UNPACK_H_
#define KERNELS_CUDA_TERNARY_UNPACK_H_

#include <cstdint>

#include "kernels/cuda/simt.h"

namespace tern {

// One lane's word of a tile (ternary_tiles.h) as the A fragment of
// mma.m16n8k32, u8, in five integer operations. a[1] and a[3], rows g + 8, are
// four times the codes: sums of theirs are shifted right by 2, exactly.
SIMT_DEVICE void UnpackTernary(uint32_t word, uint32_t (&a)[4]) {
  const uint32_t high = word >> 4;
  a[0] = word & 0x03030303;
  a[1] = word & 0x0c0c0c0c;
  a[2] = high & 0x03030303;
  a[3] = high & 0x0c0c0c0c;
}

}  // namespace tern

#endif  // KERNELS_CUDA_TERNARY_UNPACK_H_
