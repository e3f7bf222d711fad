#ifndef KERNELS_CUDA_SIMT_PROBE_H_
#define KERNELS_CUDA_SIMT_PROBE_H_

#include <cstdint>
#include <vector>

#include "kernels/cuda/simt_probe_kernel.h"

namespace tern::simt {

// `n` inputs of random bits; floats are ordinary numbers.
std::vector<ProbeInput> RandomProbeInputs(int n, uint32_t seed);

// Runs ProbeKernel on the emulator, one thread for each input. `total` gets the
// sum of the thread indices. Empty when the emulator found a mistake.
// REQUIRES: inputs are a multiple of ProbeKernel::kThreads.
std::vector<ProbeResult> RunProbe(const std::vector<ProbeInput>& in,
                                  int32_t* total);

}  // namespace tern::simt

#endif  // KERNELS_CUDA_SIMT_PROBE_H_
