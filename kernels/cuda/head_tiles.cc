#include "kernels/cuda/head_tiles.h"

namespace tern::cuda {

size_t HeadTileOffset(int row, int column, int n_columns) {
  const int r = row % kHeadTileRows;
  const int c = column % kHeadTileColumns;
  const int lane = r % 8 * 4 + c % 16 / 4;
  const int i = r / 8 + c / 16 * 2;
  return row / kHeadTileRows * HeadTileRowBytes(n_columns) +
         static_cast<size_t>(column / kHeadTileColumns) * kHeadTileBytes +
         lane * 16 + i * 4 + c % 4;
}

void PlaceHeadRow(const int8_t* q, int n_columns, int row, int8_t* tiles) {
  for (int column = 0; column < n_columns; ++column) {
    tiles[HeadTileOffset(row, column, n_columns)] = q[column];
  }
}

}  // namespace tern::cuda
