#ifndef KERNELS_CUDA_HEAD_TILES_H_
#define KERNELS_CUDA_HEAD_TILES_H_

#include <cstddef>
#include <cstdint>

namespace tern::cuda {

// How an int8 head (kernels/head.h) lies in the memory of a GPU: in tiles of 16
// rows and 32 columns, those of the same rows after each other. A tile is the
// left operand of mma.m16n8k32, 16 bytes for each lane, so that a warp loads it
// at once. With g = lane / 4 and t = lane % 4, byte 4 * i + j of a lane is
//
//   row     g (i = 0, 2) or g + 8 (i = 1, 3)
//   column  4 * t + j (i < 2) or 16 + 4 * t + j
//
// Rows and columns beyond the matrix hold 0.
// Source: PTX ISA, "Matrix Fragments for mma.m16n8k32".
inline constexpr int kHeadTileRows = 16;
inline constexpr int kHeadTileColumns = 32;
inline constexpr int kHeadTileBytes = kHeadTileRows * kHeadTileColumns;

inline constexpr int HeadTileCount(int n, int tile) {
  return (n + tile - 1) / tile;
}
// Bytes of all tiles of 16 rows, and of a whole head.
inline constexpr size_t HeadTileRowBytes(int n_columns) {
  return static_cast<size_t>(HeadTileCount(n_columns, kHeadTileColumns)) *
         kHeadTileBytes;
}
inline constexpr size_t HeadTilesBytes(int n_rows, int n_columns) {
  return HeadTileCount(n_rows, kHeadTileRows) * HeadTileRowBytes(n_columns);
}

// Where an element lies, in bytes from the first tile.
size_t HeadTileOffset(int row, int column, int n_columns);

// Puts one quantised row where it belongs.
//
// q: int8 [n_columns], of Kernels::quantize_head_row.
// tiles: HeadTilesBytes(n_rows, n_columns) bytes, zero before the first row.
void PlaceHeadRow(const int8_t* q, int n_columns, int row, int8_t* tiles);

}  // namespace tern::cuda

#endif  // KERNELS_CUDA_HEAD_TILES_H_
