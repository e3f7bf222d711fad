#include "kernels/ternary_layout.h"

#include <algorithm>
#include <cstdint>
#include <random>
#include <vector>

#include "gtest/gtest.h"

namespace tern {
namespace {

TEST(TernaryLayout, OneCodeLandsWhereTheDocumentSays) {
  // Row 20 is row 4 of the second half-block; column 16 + 4 * 2 + 3 is field 2,
  // byte 3 of the second block.
  std::vector<uint8_t> codes(32 * 32, 1);
  codes[20 * 32 + 27] = 2;
  std::vector<uint8_t> panel(PanelBytes(32));
  PackTernaryPanel(codes.data(), 32, 32, panel.data());
  for (size_t i = 0; i < panel.size(); ++i) {
    const bool here = i == 128 + 64 + 4 * 4 + 3;
    // Codes of weight 0 are 0b01 in all fields.
    ASSERT_EQ(panel[i], here ? 0b01100101 : 0b01010101) << i;
  }
}

TEST(TernaryLayout, WeightsComeBack) {
  for (int n_out : {1, 16, 31, 32, 33, 100}) {
    for (int n_in : {16, 48, 256}) {
      const unsigned seed = n_out * 1000 + n_in;
      std::mt19937 rng(seed);
      std::vector<uint8_t> codes(static_cast<size_t>(n_out) * n_in);
      for (uint8_t& c : codes) c = rng() % 3;
      std::vector<uint8_t> packed(PackedBytes(n_out, n_in), 0xff);
      for (int p = 0; p < PanelCount(n_out); ++p) {
        PackTernaryPanel(&codes[static_cast<size_t>(p) * kPanelRows * n_in],
                         std::min(kPanelRows, n_out - p * kPanelRows), n_in,
                         &packed[p * PanelBytes(n_in)]);
      }
      const TernaryView view = {packed.data(), n_out, n_in, 1.0f};
      for (int r = 0; r < PanelCount(n_out) * kPanelRows; ++r) {
        for (int k = 0; k < n_in; ++k) {
          const int expected = r < n_out ? codes[r * n_in + k] - 1 : 0;
          ASSERT_EQ(TernaryWeightAt(view, r, k), expected)
              << "row " << r << " column " << k << " seed " << seed;
        }
      }
    }
  }
}

TEST(TernaryLayout, SizesCountWholePanels) {
  EXPECT_EQ(PanelCount(32), 1);
  EXPECT_EQ(PanelCount(33), 2);
  EXPECT_EQ(PanelBytes(2560), 20480u);
  // 2 bits a weight, in 64 bits where it matters.
  EXPECT_EQ(PackedBytes(128256, 131056), size_t{128256} * 131056 / 4);
}

}  // namespace
}  // namespace tern
