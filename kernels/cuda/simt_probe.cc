#include "kernels/cuda/simt_probe.h"

#include <random>

#include "absl/status/status.h"
#include "kernels/cuda/launch_shape.h"
#include "kernels/cuda/simt_emulator.h"
#include "kernels/float16.h"
#include "util/logging.h"

namespace tern::simt {

std::vector<ProbeInput> RandomProbeInputs(int n, uint32_t seed) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal(0, 10);
  auto two_halves = [&rng] {
    const uint16_t low = tern::FloatToHalf(static_cast<int>(rng() % 65) - 32);
    const uint16_t high = tern::FloatToHalf(static_cast<int>(rng() % 65) - 32);
    return uint32_t{low} | uint32_t{high} << 16;
  };
  std::vector<ProbeInput> inputs(n);
  for (ProbeInput& in : inputs) {
    for (uint32_t& word : in.a) word = rng();
    for (uint32_t& word : in.b) word = rng();
    for (int32_t& c : in.c) c = static_cast<int32_t>(rng() % 20001) - 10000;
    for (uint32_t& word : in.half_a) word = two_halves();
    for (uint32_t& word : in.half_b) word = two_halves();
    for (float& x : in.x) x = normal(rng);
    in.pad = 0;
    for (uint64_t& wide : in.wide) wide = uint64_t{rng()} << 32 | rng();
    in.words = {static_cast<uint32_t>(rng()), static_cast<uint32_t>(rng()),
                static_cast<uint32_t>(rng()), static_cast<uint32_t>(rng())};
  }
  return inputs;
}

std::vector<ProbeResult> RunProbe(const std::vector<ProbeInput>& in,
                                  int32_t* total) {
  std::vector<ProbeResult> out(in.size());
  *total = 0;
  Emulator emulator;
  emulator.AllowRead(in.data(), in.size());
  emulator.AllowWrite(out.data(), out.size());
  emulator.AllowWrite(total, 1);
  LaunchShape shape;
  shape.grid_x = static_cast<int>(in.size()) / ProbeKernel::kThreads;
  shape.threads = ProbeKernel::kThreads;
  shape.shared_bytes = ProbeKernel::kSharedBytes;
  const absl::Status status =
      emulator.Run<ProbeKernel>(shape, {in.data(), out.data(), total});
  if (!status.ok()) {
    LOG(ERROR) << "event=probe_failed error=\"" << status.message() << "\"";
    out.clear();
  }
  return out;
}

}  // namespace tern::simt
