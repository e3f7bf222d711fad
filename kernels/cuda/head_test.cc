#include "kernels/head.h"

#include <cstdint>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "gtest/gtest.h"
#include "kernels/cuda/head_args.h"
#include "kernels/cuda/head_tiles.h"
#include "kernels/cuda/test_device.h"
#include "kernels/isa.h"
#include "kernels/kernels.h"
#include "kernels/kernels_testing.h"
#include "kernels/quantize.h"

namespace tern::cuda {
namespace {

using ::tern::testing::AlignedArray;
using ::tern::testing::RandomFloats;
using ::tern::testing::SameArray;

constexpr float kUntouched = -12345.0f;

TEST(HeadTiles, EveryElementHasItsPlace) {
  const int n_rows = 35;
  const int n_columns = 80;
  std::set<size_t> offsets;
  for (int row = 0; row < n_rows; ++row) {
    for (int column = 0; column < n_columns; ++column) {
      offsets.insert(HeadTileOffset(row, column, n_columns));
    }
  }
  EXPECT_EQ(offsets.size(), size_t{35} * 80);
  EXPECT_LT(*offsets.rbegin(), HeadTilesBytes(n_rows, n_columns));
  // Lane 7 of the second tile of the third 16 rows: g = 1, t = 3.
  EXPECT_EQ(HeadTileOffset(32 + 1, 32 + 12, 80), 2 * 3 * 512 + 512 + 7 * 16);
  EXPECT_EQ(HeadTileOffset(32 + 9, 32 + 31, 80),
            2 * 3 * 512 + 512 + 7 * 16 + 15);
}

class HeadTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string reason;
    device_ = TestDevice::Create(&reason);
    if (device_ == nullptr) GTEST_SKIP() << reason;
  }

  void Check(int n_rows, int n_columns, int n_tokens) {
    SCOPED_TRACE(::testing::Message() << n_rows << " x " << n_columns << ", "
                                      << n_tokens << " tokens");
    std::mt19937 rng(n_rows + n_columns + n_tokens);
    const Kernels& ref = KernelsFor(Isa::kRef);
    // Both forms of the head.
    const size_t panel = HeadPanelBytes(n_columns);
    AlignedArray<uint8_t> upper(Int8PlaneBytes(n_rows, n_columns));
    AlignedArray<uint8_t> lower(Int8PlaneBytes(n_rows, n_columns));
    std::vector<float> scales(HeadPanelCount(n_rows) * kHeadPanelRows);
    std::vector<int8_t> tiles(HeadTilesBytes(n_rows, n_columns));
    for (int row = 0; row < n_rows; ++row) {
      std::vector<float> w = RandomFloats(n_columns, &rng);
      // All 127 with all 127 is the largest sum.
      if (row == 1) w.assign(n_columns, 1.0f);
      std::vector<int8_t> q(n_columns);
      scales[row] = ref.quantize_head_row(w.data(), n_columns, q.data());
      PlaceInt8Row(q.data(), n_columns, row % kHeadPanelRows,
                   upper.data() + row / kHeadPanelRows * panel,
                   lower.data() + row / kHeadPanelRows * panel);
      PlaceHeadRow(q.data(), n_columns, row, tiles.data());
    }
    std::vector<int8_t> x(n_tokens * n_columns);
    std::vector<float> s;
    std::vector<int32_t> sums;
    for (int t = 0; t < n_tokens; ++t) {
      std::vector<float> token = RandomFloats(n_columns, &rng);
      if (t == 0) token.assign(n_columns, -1.0f);
      const QuantizedScale scale =
          ref.quantize_token(token.data(), n_columns, &x[t * n_columns]);
      s.push_back(scale.s);
      sums.push_back(scale.sum);
    }
    const size_t stride = n_rows + 3;
    std::vector<float> expected(n_tokens * stride, kUntouched);
    const Int8View view = {upper.data(), lower.data(), scales.data(),
                           nullptr,      n_rows,       n_columns};
    const QuantizedTokens in = {x.data(), s.data(), sums.data(), n_tokens,
                                n_columns};
    ref.head_int8(view, in, 0, n_rows, expected.data(), stride);

    HeadArgs args;
    args.tiles = device_->Input(tiles);
    args.row_scale = device_->Input(
        std::vector<float>(scales.begin(), scales.begin() + n_rows));
    args.q = device_->Input(x);
    args.s = device_->Input(s);
    args.logits =
        device_->InOut(std::vector<float>(n_tokens * stride, kUntouched));
    args.logits_stride = stride;
    args.n_rows = n_rows;
    args.n_columns = n_columns;
    args.n_tokens = n_tokens;
    const absl::Status status = device_->HeadInt8(args);
    ASSERT_TRUE(status.ok()) << status.ToString();
    EXPECT_TRUE(SameArray(expected.data(), args.logits, expected.size()));
  }

  std::unique_ptr<TestDevice> device_;
};

TEST_F(HeadTest, EveryNumberOfTokens) {
  for (const int n_tokens : {1, 2, 3, 7, 8, 9, 31, 32, 33, 64, 65, 130}) {
    Check(37, 64, n_tokens);
  }
}

TEST_F(HeadTest, EveryWidth) {
  for (const int n_columns : {16, 48, 256, 272, 512, 528, 1040}) {
    Check(20, n_columns, 1);
    Check(20, n_columns, 5);
  }
}

TEST_F(HeadTest, SeveralBlocks) {
  Check(300, 96, 1);
  Check(300, 96, 2);
  Check(300, 96, 20);
  Check(129, 96, 70);
}

}  // namespace
}  // namespace tern::cuda
