#include "kernels/cuda/ternary_tiles.h"

#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cuda/ternary_unpack.h"

namespace tern {
namespace {

// What the registers of every lane must hold, by the words of PTX ISA, "Matrix
// Fragments for mma.m16n8k32": "row = groupID for ai where 0 <= i < 4 || 8 <= i
// < 12, groupID + 8 otherwise; col = (threadID_in_group * 4) + (i & 0x3) for i
// < 8, ... + 16 otherwise".
TEST(TernaryTiles, UnpackToTheFragmentsOfMma) {
  const int n_in = 2 * kTileColumns;
  std::mt19937 rng(3);
  std::vector<uint8_t> codes(kTileRows * n_in);
  for (uint8_t& code : codes) code = rng() % 3;
  std::vector<uint8_t> tiles(TernaryTilesBytes(kTileRows, n_in));
  PackTernaryTiles(codes.data(), kTileRows, n_in, tiles.data());
  for (int lane = 0; lane < 32; ++lane) {
    for (int step = 0; step < n_in / 32; ++step) {  // of one mma
      uint32_t word;
      std::memcpy(&word,
                  &tiles[step / 4 * kTileBytes + lane * 16 + step % 4 * 4],
                  sizeof(word));
      uint32_t a[4];
      UnpackTernary(word, a);
      for (int i = 0; i < 16; ++i) {
        const bool upper = i < 4 || (8 <= i && i < 12);
        const int row = upper ? lane / 4 : lane / 4 + 8;
        const int column = lane % 4 * 4 + (i & 3) + (i < 8 ? 0 : 16);
        EXPECT_EQ(a[i / 4] >> (8 * (i % 4)) & 255,
                  codes[row * n_in + 32 * step + column] * (upper ? 1u : 4u))
            << "lane " << lane << ", mma " << step << ", element " << i;
      }
    }
  }
}

TEST(TernaryTiles, MissingRowsAndColumnsAreZero) {
  const int n_rows = 3;
  const int n_in = 144;
  std::vector<uint8_t> codes(n_rows * n_in, 2);
  std::vector<uint8_t> tiles(TernaryTilesBytes(n_rows, n_in), 0xff);
  ASSERT_EQ(tiles.size(), 2u * kTileBytes);
  PackTernaryTiles(codes.data(), n_rows, n_in, tiles.data());
  int twos = 0;
  for (uint8_t byte : tiles) {
    for (int field = 0; field < 4; ++field) {
      const int code = byte >> (2 * field) & 3;
      EXPECT_TRUE(code == 0 || code == 2);
      twos += code == 2;
    }
  }
  EXPECT_EQ(twos, n_rows * n_in);
}

}  // namespace
}  // namespace tern
