#include "kernels/cuda/ternary_testing.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "absl/status/status.h"
#include "kernels/cuda/simt_emulator.h"
#include "kernels/cuda/ternary_gemv_kernel.h"
#include "kernels/cuda/ternary_mma_kernel.h"
#include "kernels/cuda/ternary_skinny_kernel.h"
#include "kernels/cuda/ternary_tiles.h"
#include "kernels/cuda/ternary_wgmma_kernel.h"

namespace tern {

TernaryProblem::TernaryProblem(int n_tokens, int n_out, int n_in, uint32_t seed,
                               bool extreme)
    : n_tokens(n_tokens),
      n_out(n_out),
      n_in(n_in),
      tiles(TernaryTilesBytes(n_out, n_in) / sizeof(simt::Words4)),
      scale(n_out),
      q(static_cast<size_t>(n_tokens) * n_in / sizeof(simt::Words4)),
      s(n_tokens),
      sum(n_tokens),
      expected(static_cast<size_t>(n_tokens) * n_out) {
  std::mt19937 rng(seed);
  std::vector<uint8_t> codes(static_cast<size_t>(n_out) * n_in);
  for (uint8_t& code : codes) code = extreme ? 2 : rng() % 3;
  const size_t tile_row_bytes =
      static_cast<size_t>(ColumnTiles(n_in)) * kTileBytes;
  for (int row = 0; row < n_out; row += kTileRows) {
    PackTernaryTiles(codes.data() + static_cast<size_t>(row) * n_in,
                     std::min(kTileRows, n_out - row), n_in,
                     reinterpret_cast<uint8_t*>(tiles.data()) +
                         row / kTileRows * tile_row_bytes);
  }
  for (int row = 0; row < n_out; ++row)
    scale[row] = row < n_out / 3 ? 0.37f : 1.7f;
  auto* values = reinterpret_cast<int8_t*>(q.data());
  for (int t = 0; t < n_tokens; ++t) {
    for (int k = 0; k < n_in; ++k) {
      const int value = static_cast<int>(rng() % 255) - 127;
      values[static_cast<size_t>(t) * n_in + k] =
          extreme ? (t % 2 == 0 ? 127 : -127) : value;
      sum[t] += values[static_cast<size_t>(t) * n_in + k];
    }
    s[t] = 0.3f + static_cast<float>(t);
  }
  // docs/exactness.md, section 4, in its own words.
  for (int t = 0; t < n_tokens; ++t) {
    for (int row = 0; row < n_out; ++row) {
      const uint8_t* row_codes = codes.data() + static_cast<size_t>(row) * n_in;
      const int8_t* token = values + static_cast<size_t>(t) * n_in;
      int32_t total = 0;
      for (int k = 0; k < n_in; ++k) total += (row_codes[k] - 1) * token[k];
      expected[static_cast<size_t>(t) * n_out + row] =
          (static_cast<float>(total) / s[t]) * scale[row];
    }
  }
}

TernaryMatmulArgs TernaryProblem::Args(float* y, int32_t* partial_sums,
                                       int32_t* arrivals,
                                       int column_splits) const {
  TernaryMatmulArgs args = {};
  args.tiles = tiles.data();
  args.scale = scale.data();
  args.n_out = n_out;
  args.n_in = n_in;
  args.q = reinterpret_cast<const int8_t*>(q.data());
  args.s = s.data();
  args.sum = sum.data();
  args.n_tokens = n_tokens;
  args.y = y;
  args.y_stride = n_out;
  args.column_splits = column_splits;
  args.partial_sums = partial_sums;
  args.arrivals = arrivals;
  return args;
}

absl::Status EmulateTernaryMatmul(const TernaryMatmulPlan& plan,
                                  const TernaryMatmulArgs& args,
                                  simt::Emulator* emulator) {
  switch (plan.kernel) {
    case TernaryKernel::kGemv1:
      return emulator->Run<TernaryGemvKernel<1>>(plan.shape, args);
    case TernaryKernel::kGemv2:
      return emulator->Run<TernaryGemvKernel<2>>(plan.shape, args);
    case TernaryKernel::kSkinny8:
      return emulator->Run<TernarySkinny8>(plan.shape, args);
    case TernaryKernel::kSkinny16:
      return emulator->Run<TernarySkinny16>(plan.shape, args);
    case TernaryKernel::kMma8:
      return emulator->Run<TernaryMma8>(plan.shape, args);
    case TernaryKernel::kMma16:
      return emulator->Run<TernaryMma16>(plan.shape, args);
    case TernaryKernel::kMma32:
      return emulator->Run<TernaryMma32>(plan.shape, args);
    case TernaryKernel::kMma64:
      return emulator->Run<TernaryMma64>(plan.shape, args);
    case TernaryKernel::kMma128:
      return emulator->Run<TernaryMma128>(plan.shape, args);
    case TernaryKernel::kWgmma128:
      return emulator->Run<TernaryWgmma128>(plan.shape, args);
  }
  return absl::InternalError("there is no such kernel");
}

absl::Status EmulateTernaryMatmul(const TernaryMatmulPlan& plan,
                                  const TernaryProblem& problem, uint32_t seed,
                                  std::vector<float>* y) {
  y->assign(problem.expected.size(), std::numeric_limits<float>::quiet_NaN());
  std::vector<int32_t> partial_sums(plan.partial_sums);
  std::vector<int32_t> arrivals(plan.arrivals);
  simt::Emulator emulator(seed);
  emulator.AllowRead(problem.tiles.data(), problem.tiles.size());
  emulator.AllowRead(problem.q.data(), problem.q.size());
  emulator.AllowRead(problem.scale.data(), problem.scale.size());
  emulator.AllowRead(problem.s.data(), problem.s.size());
  emulator.AllowRead(problem.sum.data(), problem.sum.size());
  emulator.AllowWrite(y->data(), y->size());
  emulator.AllowWrite(partial_sums.data(), partial_sums.size());
  emulator.AllowWrite(arrivals.data(), arrivals.size());
  const TernaryMatmulArgs args = problem.Args(
      y->data(), partial_sums.data(), arrivals.data(), plan.column_splits);
  const absl::Status status = EmulateTernaryMatmul(plan, args, &emulator);
  if (!status.ok()) return status;
  if (emulator.bank_conflicts() > 0) {
    return absl::InternalError("rows of ldmatrix lie in the same banks");
  }
  const auto zero = [](int32_t v) { return v == 0; };
  if (!std::all_of(partial_sums.begin(), partial_sums.end(), zero) ||
      !std::all_of(arrivals.begin(), arrivals.end(), zero)) {
    return absl::InternalError("the meeting places are not left zero");
  }
  return absl::OkStatus();
}

}  // namespace tern
