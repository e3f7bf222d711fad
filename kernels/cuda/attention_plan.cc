#include "kernels/cuda/attention_plan.h"

#include <algorithm>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/attention.h"
#include "kernels/cuda/attention_kernel.h"
#include "util/logging.h"

namespace tern::cuda {
namespace {

constexpr int kWideTileRows = 16;
constexpr int kWarpsPerBlock = 4;

// Warps of a multiprocessor that keep memory busy: each has about 2 KiB of keys
// or values on the way, and some 30 KiB cover the latency at 4.8 TB/s.
constexpr int kWarpsToFill = 16;

int64_t CeilDivide(int64_t n, int64_t divisor) {
  return (n + divisor - 1) / divisor;
}

int ChunkCount(const AttentionWork& work) {
  return static_cast<int>(CeilDivide(work.n_positions_max, kAttentionChunk));
}

// Rows of a run that share a key-value head.
int RunRows(const AttentionWork& work) {
  return work.run_tokens_max * (work.n_heads / work.n_kv_heads);
}

int64_t TaskCount(const AttentionWork& work, int tile_rows) {
  return work.n_runs * CeilDivide(RunRows(work), tile_rows);
}

template <int kTileRows>
int WarpSharedBytesOf(int head_dim) {
  using Kernel = typename AttentionTile<kTileRows>::Kernel;
  return (head_dim * Kernel::kFloatsPerElement + Kernel::kMoreFloats) *
         static_cast<int>(sizeof(float));
}

int WarpSharedBytes(int tile_rows, int head_dim) {
  switch (tile_rows) {
    case 1:
      return WarpSharedBytesOf<1>(head_dim);
    case 2:
      return WarpSharedBytesOf<2>(head_dim);
    case 4:
      return WarpSharedBytesOf<4>(head_dim);
    case 8:
      return WarpSharedBytesOf<8>(head_dim);
    default:
      return WarpSharedBytesOf<16>(head_dim);
  }
}

}  // namespace

absl::Status CheckAttentionShape(int n_heads, int n_kv_heads, int head_dim) {
  if (n_kv_heads < 1 || n_heads < 1 || n_heads % n_kv_heads != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("the model has ", n_heads, " heads for ", n_kv_heads,
                     " key-value heads, which is no multiple"));
  }
  if (head_dim < 4 || head_dim % 4 != 0 || head_dim > kAttentionHeadDimMax) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the model has heads of ", head_dim,
        " elements; attention on a GPU takes multiples of 4 up to ",
        kAttentionHeadDimMax, "; serve this model by CPU workers"));
  }
  return absl::OkStatus();
}

int AttentionRunTokens(int n_heads, int n_kv_heads) {
  return std::max(1, kWideTileRows / (n_heads / n_kv_heads));
}

size_t AttentionPartialBytes(const AttentionWork& work) {
  return sizeof(float) * ChunkCount(work) *
         (work.head_dim + kAttentionPartialExtra) * work.n_tokens *
         work.n_heads;
}

AttentionPlan PlanAttention(const AttentionWork& work,
                            const DeviceLimits& device, size_t partials_bytes) {
  // The smallest tile that takes a run whole reads its keys and values once.
  int tile_rows = 1;
  while (tile_rows < RunRows(work) && tile_rows < kWideTileRows) {
    tile_rows *= 2;
  }
  const int64_t enough =
      int64_t{kWarpsToFill} * device.multiprocessors / work.n_kv_heads;
  const bool splits = ChunkCount(work) > 1 &&
                      TaskCount(work, tile_rows) < enough &&
                      AttentionPartialBytes(work) <= partials_bytes;
  // Where most of the card would stand idle, smaller tiles end earlier, though
  // keys and values are read several times, from caches.
  const int chunks = splits ? ChunkCount(work) : 1;
  while (tile_rows > 1 &&
         TaskCount(work, tile_rows / 2) * chunks * 4 <= enough) {
    tile_rows /= 2;
  }
  return PlanAttentionAs(work, device, tile_rows, splits);
}

AttentionPlan PlanAttentionAs(const AttentionWork& work,
                              const DeviceLimits& device, int tile_rows,
                              bool splits) {
  const int warp_bytes = WarpSharedBytes(tile_rows, work.head_dim);
  const int warps = std::min(kWarpsPerBlock, device.shared_bytes / warp_bytes);
  CHECK(warps >= 1);
  AttentionPlan plan = {};
  plan.tile_rows = tile_rows;
  plan.splits = splits;
  plan.attend.grid_x =
      static_cast<int>(CeilDivide(TaskCount(work, tile_rows), warps));
  plan.attend.grid_y = work.n_kv_heads;
  plan.attend.grid_z = splits ? ChunkCount(work) : 1;
  plan.attend.threads = warps * simt::kWarpSize;
  plan.attend.shared_bytes = warps * warp_bytes;
  if (splits) {
    plan.merge.grid_x = static_cast<int>(
        CeilDivide(int64_t{work.n_runs} * work.run_tokens_max * work.n_heads,
                   kWarpsPerBlock));
    plan.merge.threads = kWarpsPerBlock * simt::kWarpSize;
  }
  return plan;
}

}  // namespace tern::cuda
