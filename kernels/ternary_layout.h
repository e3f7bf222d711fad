#ifndef KERNELS_TERNARY_LAYOUT_H_
#define KERNELS_TERNARY_LAYOUT_H_

#include <cstddef>
#include <cstdint>

namespace tern {

// The one packed layout of ternary matrices on CPUs (docs/ternary_layout.md).
//
// A matrix W[n_out, n_in] of weights -1, 0, +1 is cut into panels of 32 rows.
// A panel is a run of 128-byte blocks, one per 16 columns, in column order. A
// block is two half-blocks of 64 bytes: rows 0..15 of the panel, then rows
// 16..31. Byte 4*r + j of a half-block holds row r and the four columns
// 4*f + j, f = 0..3, of the block, as codes w + 1 in {0, 1, 2}, field f in bits
// 2f+1 : 2f. Code 3 never occurs.
//
// n_in must be a multiple of 16. Rows beyond n_out in the last panel hold code
// 1 (weight 0).
inline constexpr int kPanelRows = 32;
inline constexpr int kBlockColumns = 16;
inline constexpr int kBlockBytes = 128;
// Alignment that packed matrices need.
inline constexpr size_t kPackedAlignment = 64;

inline constexpr int PanelCount(int n_out) {
  return (n_out + kPanelRows - 1) / kPanelRows;
}
inline constexpr size_t PanelBytes(int n_in) {
  return static_cast<size_t>(n_in / kBlockColumns) * kBlockBytes;
}
inline constexpr size_t PackedBytes(int n_out, int n_in) {
  return PanelCount(n_out) * PanelBytes(n_in);
}

// A packed matrix. Borrowed: the bytes outlive the view.
struct TernaryView {
  const uint8_t* packed;  // PackedBytes(n_out, n_in) bytes, 64-byte aligned
  int n_out;
  int n_in;     // a multiple of 16, below 2^17
  float scale;  // s_w: the weights are scale * {-1, 0, +1}
};

// Packs one panel.
//
// codes: row-major [n_rows, n_in], each 0, 1 or 2. 1 <= n_rows <= 32; missing
//        rows are filled with code 1.
// panel: PanelBytes(n_in) bytes.
// REQUIRES: n_in % 16 == 0.
void PackTernaryPanel(const uint8_t* codes, int n_rows, int n_in,
                      uint8_t* panel);

// The weight at (row, column) of a packed matrix: -1, 0 or +1. Slow; for tests
// and for the reference kernels.
int TernaryWeightAt(const TernaryView& w, int row, int column);

}  // namespace tern

#endif  // KERNELS_TERNARY_LAYOUT_H_
