#include "kernels/cuda/attention_plan.h"

#include "absl/status/status.h"
#include "gtest/gtest.h"
#include "kernels/attention.h"
#include "kernels/cuda/device_limits.h"

namespace tern::cuda {
namespace {

constexpr DeviceLimits kH200 = {132, 227 << 10};
constexpr DeviceLimits kSmall = {84, 99 << 10};
constexpr size_t kRoom = size_t{64} << 20;

// 2B-4T: 20 heads on 5, of 128 elements.
AttentionWork Decode(int batch, int context) {
  return {batch, 1, context, batch, 20, 5, 128};
}

int WarpCount(const AttentionPlan& plan) {
  return plan.attend.grid_x * plan.attend.grid_y * plan.attend.grid_z *
         plan.attend.threads / 32;
}

TEST(AttentionPlan, OneSequenceIsSpreadOverTheCard) {
  const AttentionPlan plan = PlanAttention(Decode(1, 512), kH200, kRoom);
  EXPECT_TRUE(plan.splits);
  EXPECT_EQ(plan.attend.grid_z, 512 / kAttentionChunk);
  EXPECT_EQ(plan.attend.grid_y, 5);
  EXPECT_LT(plan.tile_rows, 4);
  EXPECT_GE(WarpCount(plan), 80);
  // A warp for each head.
  EXPECT_EQ(plan.merge.grid_x * plan.merge.threads / 32, 20);
}

TEST(AttentionPlan, ManySequencesReadTheirKeysOnce) {
  const AttentionPlan plan = PlanAttention(Decode(1024, 512), kH200, kRoom);
  EXPECT_FALSE(plan.splits);
  EXPECT_EQ(plan.tile_rows, 4);
  EXPECT_EQ(plan.attend.grid_z, 1);
  EXPECT_EQ(plan.attend.grid_x * plan.attend.threads / 32, 1024);
}

TEST(AttentionPlan, OneChunkIsNotSplit) {
  EXPECT_FALSE(PlanAttention(Decode(1, kAttentionChunk), kH200, kRoom).splits);
  EXPECT_TRUE(
      PlanAttention(Decode(1, kAttentionChunk + 1), kH200, kRoom).splits);
}

TEST(AttentionPlan, PartialResultsFitTheirRoom) {
  const AttentionWork work = Decode(8, 4096);
  EXPECT_EQ(AttentionPartialBytes(work), size_t{64} * 8 * 20 * 132 * 4);
  const size_t bytes = AttentionPartialBytes(work);
  EXPECT_TRUE(PlanAttention(work, kH200, bytes).splits);
  EXPECT_FALSE(PlanAttention(work, kH200, bytes - 1).splits);
}

TEST(AttentionPlan, PromptsTakeTheWidestTile) {
  EXPECT_EQ(AttentionRunTokens(20, 5), 4);
  EXPECT_EQ(AttentionRunTokens(12, 4), 5);
  EXPECT_EQ(AttentionRunTokens(64, 2), 1);
  const AttentionWork work = {512, 4, 2048, 2048, 20, 5, 128};
  const AttentionPlan plan = PlanAttention(work, kH200, kRoom);
  EXPECT_EQ(plan.tile_rows, 16);
  EXPECT_FALSE(plan.splits);
  EXPECT_EQ(plan.attend.grid_x * plan.attend.threads / 32, 512);
}

TEST(AttentionPlan, SharedMemoryFitsEveryCard) {
  for (const int head_dim : {4, 64, 100, 128, 256}) {
    for (const int tile_rows : {1, 2, 4, 8, 16}) {
      const AttentionWork work = {512, 16, 4096, 8192, 8, 8, head_dim};
      const AttentionPlan plan =
          PlanAttentionAs(work, kSmall, tile_rows, false);
      EXPECT_LE(plan.attend.shared_bytes, kSmall.shared_bytes);
      EXPECT_GE(plan.attend.threads, 32);
      // Every row of every run has a warp.
      EXPECT_GE(plan.attend.grid_x * (plan.attend.threads / 32) * tile_rows,
                512 * 16);
    }
  }
}

TEST(AttentionPlan, RefusesShapesThatTheKernelsLack) {
  EXPECT_TRUE(CheckAttentionShape(20, 5, 128).ok());
  EXPECT_TRUE(CheckAttentionShape(32, 32, 100).ok());
  EXPECT_EQ(CheckAttentionShape(20, 5, 126).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(CheckAttentionShape(20, 5, 260).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(CheckAttentionShape(20, 6, 128).code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace tern::cuda
