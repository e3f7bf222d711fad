#include "kernels/cuda/ternary_tiles.h"

#include <cstring>

namespace tern {

void PackTernaryTiles(const uint8_t* codes, int n_rows, int n_in,
                      uint8_t* tiles) {
  std::memset(tiles, 0, static_cast<size_t>(ColumnTiles(n_in)) * kTileBytes);
  for (int row = 0; row < n_rows; ++row) {
    for (int column = 0; column < n_in; ++column) {
      const int word = column % kTileColumns / 32;
      const int lane = row % 8 * 4 + column % 16 / 4;
      const int field = row / 8 + 2 * (column % 32 / 16);
      uint8_t* tile = tiles + column / kTileColumns * kTileBytes;
      tile[16 * lane + 4 * word + column % 4] |=
          codes[static_cast<size_t>(row) * n_in + column] << (2 * field);
    }
  }
}

}  // namespace tern
