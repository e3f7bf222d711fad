#ifndef KERNELS_CUDA_TERNARY_TILES_H_
#define KERNELS_CUDA_TERNARY_TILES_H_

#include <cstddef>
#include <cstdint>

namespace tern {

// How ternary matrices lie in a GPU's memory: 2 bits a weight, one copy for
// every kernel, in the order in which the lanes of a warp want them.
//
// A matrix W[n_out, n_in] is cut into tiles of 16 rows x 128 columns, 512
// bytes each; the tiles of the same rows follow each other in column order,
// then come those of the next rows. In a tile, lane l of a warp owns the 16
// bytes at 16 * l, so that a warp loads a tile at once: four little-endian
// words, one for each 32 columns. With g = l / 4 and t = l % 4, byte j of word
// i has the codes (w + 1, in {0, 1, 2}) of
//
//   bits 1:0   row g,     column 32 * i + 4 * t + j
//   bits 3:2   row g + 8, column 32 * i + 4 * t + j
//   bits 5:4   row g,     column 32 * i + 16 + 4 * t + j
//   bits 7:6   row g + 8, column 32 * i + 16 + 4 * t + j
//
// which are registers 0 to 3 of the A fragment of mma.m16n8k32, the codes of
// rows g + 8 times four (ternary_unpack.h).
//
// Rows beyond n_out and columns beyond n_in have the code 0: it adds nothing to
// a sum of codes times activations, whatever activation meets it.
inline constexpr int kTileRows = 16;
inline constexpr int kTileColumns = 128;
inline constexpr int kTileBytes = 512;

inline constexpr int RowTiles(int n_out) {
  return (n_out + kTileRows - 1) / kTileRows;
}
inline constexpr int ColumnTiles(int n_in) {
  return (n_in + kTileColumns - 1) / kTileColumns;
}
// Of all tiles of a matrix.
inline constexpr size_t TernaryTilesBytes(int n_out, int n_in) {
  return static_cast<size_t>(RowTiles(n_out)) * ColumnTiles(n_in) * kTileBytes;
}

// Packs the tiles of up to 16 rows. Matrices that read the same tokens are
// fused by packing their rows as those of one matrix.
//
// codes: row-major [n_rows, n_in], each 0, 1 or 2. 1 <= n_rows <= 16.
// tiles: ColumnTiles(n_in) * kTileBytes bytes.
void PackTernaryTiles(const uint8_t* codes, int n_rows, int n_in,
                      uint8_t* tiles);

}  // namespace tern

#endif  // KERNELS_CUDA_TERNARY_TILES_H_
