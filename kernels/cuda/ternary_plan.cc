#include "kernels/cuda/ternary_plan.h"

#include <algorithm>
#include <cstdint>
#include <iterator>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "kernels/cuda/simt.h"
#include "kernels/cuda/ternary_gemv_kernel.h"
#include "kernels/cuda/ternary_mma_kernel.h"
#include "kernels/cuda/ternary_skinny_kernel.h"
#include "kernels/cuda/ternary_tiles.h"
#include "kernels/cuda/ternary_wgmma_kernel.h"

namespace tern {
namespace {

constexpr int kColumnsMax = (1 << 17) - 1;
constexpr int kGridYMax = 65535;

// What a plan must know of an mma kernel.
struct MmaKernel {
  TernaryKernel kernel;
  int rows;
  int tokens;
  int threads;
  int shared_bytes;
  int blocks_per_sm;
};

template <class Kernel>
constexpr MmaKernel Describe(TernaryKernel kernel) {
  using Block = typename Kernel::Block;
  return {kernel,          Block::kRows,        Block::kTokens,
          Block::kThreads, Block::kSharedBytes, Kernel::kBlocksPerSm};
}

constexpr MmaKernel kMmaKernels[] = {
    Describe<TernaryMma8>(TernaryKernel::kMma8),
    Describe<TernaryMma16>(TernaryKernel::kMma16),
    Describe<TernaryMma32>(TernaryKernel::kMma32),
    Describe<TernaryMma64>(TernaryKernel::kMma64),
    Describe<TernaryMma128>(TernaryKernel::kMma128),
    Describe<TernaryWgmma128>(TernaryKernel::kWgmma128),
};

int CeilDivide(int a, int b) { return (a - 1) / b + 1; }

absl::Status CheckSizes(int n_tokens, int n_out, int n_in) {
  if (n_tokens < 1 || n_out < 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        "a multiplication has at least one token and one row, not ", n_tokens,
        " and ", n_out));
  }
  if (n_in < 16 || n_in % 16 != 0 || n_in > kColumnsMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("a ternary matrix has a multiple of 16 columns, at most ",
                     kColumnsMax, ", not ", n_in));
  }
  return absl::OkStatus();
}

absl::Status CheckShared(const DeviceLimits& device, int bytes,
                         TernaryKernel kernel) {
  if (bytes <= device.shared_bytes) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(TernaryKernelName(kernel), " needs ", bytes,
                   " bytes of shared memory in a block; this device has ",
                   device.shared_bytes));
}

// The most tokens of the kernels that cut columns among the warps of a block; 0
// for the others.
int TokensOfOneBlock(TernaryKernel kernel) {
  switch (kernel) {
    case TernaryKernel::kGemv1:
      return 1;
    case TernaryKernel::kGemv2:
      return 2;
    case TernaryKernel::kSkinny8:
      return TernarySkinny8::kTokens;
    case TernaryKernel::kSkinny16:
      return TernarySkinny16::kTokens;
    default:
      return 0;
  }
}

int SharedBytesOf(TernaryKernel kernel, int n_in, int threads) {
  switch (kernel) {
    case TernaryKernel::kGemv1:
      return TernaryGemvKernel<1>::SharedBytes(n_in, threads);
    case TernaryKernel::kGemv2:
      return TernaryGemvKernel<2>::SharedBytes(n_in, threads);
    case TernaryKernel::kSkinny8:
      return TernarySkinny8::SharedBytes(n_in);
    default:
      return TernarySkinny16::SharedBytes(n_in);
  }
}

absl::StatusOr<TernaryMatmulPlan> PlanFewTokens(const DeviceLimits& device,
                                                TernaryKernel kernel,
                                                int splits, int n_tokens,
                                                int n_out, int n_in) {
  if (n_tokens > TokensOfOneBlock(kernel)) {
    return absl::InvalidArgumentError(
        absl::StrCat(TernaryKernelName(kernel), " takes at most ",
                     TokensOfOneBlock(kernel), " tokens, not ", n_tokens));
  }
  if (splits != 1 && splits != 2 && splits != 4 && splits != 8) {
    return absl::InvalidArgumentError(
        absl::StrCat("columns are cut among 1, 2, 4 or 8 warps, not ", splits));
  }
  TernaryMatmulPlan plan = {};
  plan.kernel = kernel;
  plan.column_splits = splits;
  // Few rows to a block of dp4a: there is little for blocks to share.
  const bool gemv = TokensOfOneBlock(kernel) <= 2;
  const int warps = gemv ? std::max(splits, 4) : TernarySkinny8::kWarps;
  plan.shape.grid_x = CeilDivide(RowTiles(n_out), warps / splits);
  plan.shape.threads = warps * simt::kWarpSize;
  plan.shape.shared_bytes = SharedBytesOf(kernel, n_in, plan.shape.threads);
  const absl::Status status =
      CheckShared(device, plan.shape.shared_bytes, kernel);
  if (!status.ok()) return status;
  return plan;
}

// Enough warps that the weights of a matrix are under way at once: a matrix of
// one layer is read in little more than one latency of the memory.
int SplitsOfOneBlock(const DeviceLimits& device, TernaryKernel kernel,
                     int n_out, int n_in) {
  const bool gemv = TokensOfOneBlock(kernel) <= 2;
  // Blocks of kSkinny* share all activations: rather more rows to a block.
  const int tiles = TernaryGemvKernel<1>::kAhead * (gemv ? 1 : 2);
  int splits = 1;
  while (splits < 8 &&
         (ColumnTiles(n_in) > splits * tiles ||
          RowTiles(n_out) * int64_t{splits} < 8 * device.multiprocessors)) {
    splits *= 2;
  }
  return splits;
}

}  // namespace

absl::string_view TernaryKernelName(TernaryKernel kernel) {
  switch (kernel) {
    case TernaryKernel::kGemv1:
      return "gemv1";
    case TernaryKernel::kGemv2:
      return "gemv2";
    case TernaryKernel::kSkinny8:
      return "skinny8";
    case TernaryKernel::kSkinny16:
      return "skinny16";
    case TernaryKernel::kMma8:
      return "mma8";
    case TernaryKernel::kMma16:
      return "mma16";
    case TernaryKernel::kMma32:
      return "mma32";
    case TernaryKernel::kMma64:
      return "mma64";
    case TernaryKernel::kMma128:
      return "mma128";
    case TernaryKernel::kWgmma128:
      return "wgmma128";
  }
  return "unknown";
}

absl::StatusOr<TernaryMatmulPlan> PlanTernaryMatmulWith(
    const DeviceLimits& device, TernaryKernel kernel, int column_splits,
    int n_tokens, int n_out, int n_in) {
  const absl::Status sizes = CheckSizes(n_tokens, n_out, n_in);
  if (!sizes.ok()) return sizes;
  if (TokensOfOneBlock(kernel) > 0) {
    return PlanFewTokens(device, kernel, column_splits, n_tokens, n_out, n_in);
  }
  const MmaKernel& mma = *std::find_if(
      std::begin(kMmaKernels), std::end(kMmaKernels),
      [kernel](const MmaKernel& k) { return k.kernel == kernel; });
  if (kernel == TernaryKernel::kWgmma128 && !device.wgmma) {
    return absl::InvalidArgumentError("this device has no wgmma");
  }
  if (column_splits < 1 || column_splits > ColumnTiles(n_in)) {
    return absl::InvalidArgumentError(
        absl::StrCat(n_in, " columns are cut into 1 to ", ColumnTiles(n_in),
                     " parts, not ", column_splits));
  }
  TernaryMatmulPlan plan = {};
  plan.kernel = kernel;
  plan.column_splits = column_splits;
  plan.shape.grid_x = CeilDivide(n_out, mma.rows);
  plan.shape.grid_y = CeilDivide(n_tokens, mma.tokens);
  plan.shape.grid_z = column_splits;
  plan.shape.threads = mma.threads;
  plan.shape.shared_bytes = mma.shared_bytes;
  if (plan.shape.grid_y > kGridYMax) {
    return absl::InvalidArgumentError(
        absl::StrCat(n_tokens,
                     " tokens are too many for one multiplication; "
                     "at most ",
                     kGridYMax * mma.tokens));
  }
  if (column_splits > 1) {
    plan.partial_sums = static_cast<size_t>(n_tokens) * n_out;
    plan.arrivals = static_cast<size_t>(plan.shape.grid_x) * plan.shape.grid_y;
  }
  const absl::Status shared =
      CheckShared(device, plan.shape.shared_bytes, kernel);
  if (!shared.ok()) return shared;
  return plan;
}

absl::StatusOr<TernaryMatmulPlan> PlanTernaryMatmul(const DeviceLimits& device,
                                                    int n_tokens, int n_out,
                                                    int n_in) {
  const absl::Status sizes = CheckSizes(n_tokens, n_out, n_in);
  if (!sizes.ok()) return sizes;
  for (TernaryKernel kernel : kAllTernaryKernels) {
    if (n_tokens > TokensOfOneBlock(kernel)) continue;
    const absl::StatusOr<TernaryMatmulPlan> plan = PlanTernaryMatmulWith(
        device, kernel, SplitsOfOneBlock(device, kernel, n_out, n_in), n_tokens,
        n_out, n_in);
    // Rows longer than shared memory are left to the others.
    if (plan.ok()) return plan;
    break;
  }
  const MmaKernel* mma = kMmaKernels;
  while (mma->tokens < n_tokens && mma->kernel != TernaryKernel::kMma128) ++mma;
  if (mma->kernel == TernaryKernel::kMma128 && device.wgmma) ++mma;
  // Splits cost additions in memory: only as many as fill the device.
  const int64_t blocks =
      int64_t{CeilDivide(n_out, mma->rows)} * CeilDivide(n_tokens, mma->tokens);
  const int wanted =
      device.multiprocessors * (n_tokens <= 16 ? mma->blocks_per_sm : 1);
  const int splits = static_cast<int>(std::clamp<int64_t>(
      wanted / blocks, 1, std::max(1, ColumnTiles(n_in) / 2)));
  return PlanTernaryMatmulWith(device, mma->kernel, splits, n_tokens, n_out,
                               n_in);
}

}  // namespace tern
