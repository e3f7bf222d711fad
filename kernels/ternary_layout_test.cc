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

// A panel of zeros but for weights +1 at (20, 64) and -1 at (20, 72), its first
// column being 48 of the second block: 64 is 16 and 72 is 24 of it.
std::vector<uint8_t> TwoWeights(TernaryPacking packing) {
  std::vector<uint8_t> codes(32 * 96, 1);
  codes[20 * 96 + 64] = 2;
  codes[20 * 96 + 72] = 0;
  std::vector<uint8_t> panel(PanelBytes(96, packing), 0xee);
  PackTernaryPanel(codes.data(), 32, 96, panel.data(), packing);
  return panel;
}

// Column 16 is column 4 of the block's second twelve: field 1, quad column 0.
// Row 20 is row 4 of the second half: run 3, place 16, that is code 0 of string
// 2. Bits 120 to 124 of that string: the last byte of word 1, its five low
// bits. Column 24 is field 0 of the third twelve: run 5, bits 200 to 204, hence
// the five low bits of byte 1 of word 3. A code of three zeros is 1 + 3 + 9 =
// 13; with +1 in field 1 it is 16, with -1 in field 0 it is 12.
TEST(TernaryLayout, Base3CodesLandWhereTheDocumentSays) {
  const std::vector<uint8_t> panel = TwoWeights(TernaryPacking::kBase3);
  ASSERT_EQ(panel.size(), 640u);
  // Codes of 13, 0b01101, in a row of bits: a period of five bytes.
  constexpr uint8_t kZeros[] = {0b10101101, 0b10110101, 0b11010110, 0b01011010,
                                0b01101011};
  for (size_t i = 0; i < panel.size(); ++i) {
    const size_t line = i % 320 / 64;
    const size_t byte_of_string = 8 * line + i % 8;
    uint8_t expected = kZeros[byte_of_string % 5];
    if (i == 320 + 64 * 1 + 8 * 2 + 7) {
      ASSERT_EQ(expected & 31, 13);
      expected += 16 - 13;
    }
    if (i == 320 + 64 * 3 + 8 * 2 + 1) {
      ASSERT_EQ(expected & 31, 13);
      expected += 12 - 13;
    }
    ASSERT_EQ(panel[i], expected) << i;
  }
}

// Column 16 is the second of group 5, the first half's: 3 * (+1) = 3, positive,
// in the high bits of run 2. Column 24 is the first of the second half's group
// 0: -1, negative, index 1 in the low bits of run 0. Zeros are index 0.
TEST(TernaryLayout, Tl2IndicesAndSignsLandWhereTheDocumentSays) {
  const std::vector<uint8_t> panel = TwoWeights(TernaryPacking::kTl2);
  ASSERT_EQ(panel.size(), 640u);
  for (size_t i = 0; i < panel.size(); ++i) {
    int expected = 0;
    if (i == 320 + 32 * (1 + 2) + 20) expected = 3 << 4;
    if (i == 320 + 160 + 20) expected = 0x80;
    if (i == 320 + 160 + 32 + 20) expected = 1;
    ASSERT_EQ(panel[i], expected) << i;
  }
}

// Column 64 begins block 4: with 65 it is pair 0, index 2 + 3 * 1 = 5, in the
// low bits of run 0. Column 72 is column 8 of the block: pair 4, index 0 + 3 *
// 1, in the low bits of run 2. Column 75 is the second of pair 5: index 1 + 3 *
// 2, in the high bits of the same byte. A pair of zeros is index 4.
TEST(TernaryLayout, Tl1IndicesLandWhereTheDocumentSays) {
  std::vector<uint8_t> codes(32 * 96, 1);
  codes[20 * 96 + 64] = 2;
  codes[20 * 96 + 72] = 0;
  codes[20 * 96 + 75] = 2;
  std::vector<uint8_t> panel(PanelBytes(96, TernaryPacking::kTl1), 0xee);
  ASSERT_EQ(panel.size(), 6 * 128u);
  PackTernaryPanel(codes.data(), 32, 96, panel.data(), TernaryPacking::kTl1);
  for (size_t i = 0; i < panel.size(); ++i) {
    int expected = 0x44;
    if (i == 128 * 4 + 32 * 0 + 20) expected = 0x45;
    if (i == 128 * 4 + 32 * 2 + 20) expected = 0x73;
    ASSERT_EQ(panel[i], expected) << i;
  }
}

TEST(TernaryLayout, WeightsComeBack) {
  for (TernaryPacking packing : kAllTernaryPackings) {
    for (int n_out : {1, 16, 31, 32, 33, 100}) {
      for (int n_in : {16, 48, 80, 256}) {
        const unsigned seed = n_out * 1000 + n_in;
        std::mt19937 rng(seed);
        std::vector<uint8_t> codes(static_cast<size_t>(n_out) * n_in);
        for (uint8_t& c : codes) c = rng() % 3;
        std::vector<uint8_t> packed(PackedBytes(n_out, n_in, packing), 0xff);
        for (int p = 0; p < PanelCount(n_out); ++p) {
          PackTernaryPanel(&codes[static_cast<size_t>(p) * kPanelRows * n_in],
                           std::min(kPanelRows, n_out - p * kPanelRows), n_in,
                           &packed[p * PanelBytes(n_in, packing)], packing);
        }
        const TernaryView view = {packed.data(), n_out, n_in, 1.0f, packing};
        // Rows that fill up the last panel and columns that fill up the last
        // block are zeros.
        const int block_columns = BlockColumns(packing);
        const int n_columns =
            (n_in + block_columns - 1) / block_columns * block_columns;
        for (int r = 0; r < PanelCount(n_out) * kPanelRows; ++r) {
          for (int k = 0; k < n_columns; ++k) {
            const int expected =
                r < n_out && k < n_in ? codes[r * n_in + k] - 1 : 0;
            ASSERT_EQ(TernaryWeightAt(view, r, k), expected)
                << TernaryPackingName(packing) << " row " << r << " column "
                << k << " seed " << seed;
          }
        }
      }
    }
  }
}

TEST(TernaryPacking, NamesParseBack) {
  for (TernaryPacking packing : kAllTernaryPackings) {
    TernaryPacking parsed;
    ASSERT_TRUE(ParseTernaryPacking(TernaryPackingName(packing), &parsed));
    EXPECT_EQ(parsed, packing);
  }
  TernaryPacking parsed;
  EXPECT_FALSE(ParseTernaryPacking("auto", &parsed));
  EXPECT_FALSE(ParseTernaryPacking("", &parsed));
}

TEST(TernaryLayout, SizesCountWholePanels) {
  EXPECT_EQ(PanelCount(32), 1);
  EXPECT_EQ(PanelCount(33), 2);
  EXPECT_EQ(PanelBytes(2560), 20480u);
  // 2 bits a weight, in 64 bits where it matters.
  EXPECT_EQ(PackedBytes(128256, 131056), size_t{128256} * 131056 / 4);
  EXPECT_EQ(PackedBytes(33, 2560, TernaryPacking::kTl1), 2 * 20480u);
  for (TernaryPacking packing :
       {TernaryPacking::kBase3, TernaryPacking::kTl2}) {
    // 5 bits for 3 weights, and columns filled up to a multiple of 48.
    EXPECT_EQ(PanelBytes(6912, packing), 6912u / 48 * 320);
    EXPECT_EQ(PanelBytes(16, packing), 320u);
    EXPECT_EQ(PanelBytes(2560, packing), 17280u);
    EXPECT_EQ(PackedBytes(33, 2560, packing), 2 * 17280u);
  }
}

}  // namespace
}  // namespace tern
