#ifndef KERNELS_HEAD_H_
#define KERNELS_HEAD_H_

#include <cstddef>
#include <cstdint>

#include "absl/strings/string_view.h"

namespace tern {

// How the output head is computed. Part of the numerics id.
enum class HeadMode {
  kStored,  // rows at the precision of the file, float32 arithmetic
  kInt8,    // rows and input rounded to int8
};

// "stored", "int8".
absl::string_view HeadModeName(HeadMode mode);
bool ParseHeadMode(absl::string_view name, HeadMode* mode);

// Element types that dense matrices are read in. The last three hold rows of
// blocks: 32 columns for kQ8_0, 256 for the others, which divide n_columns.
// What a weight of each type is says docs/exactness.md, section 11.
enum class DenseType { kF32, kF16, kBF16, kQ8_0, kQ6_K, kQ4_K };

// Columns and bytes of a block; 1 and the size of an element where a type has
// no blocks.
int DenseBlockColumns(DenseType type);
size_t DenseBlockBytes(DenseType type);

// Bytes of a row. REQUIRES: n_columns % DenseBlockColumns(type) == 0.
size_t DenseRowBytes(DenseType type, int n_columns);

// A dense matrix [n_rows, n_columns], row-major as in the file. Borrowed.
//
// logits[r] = canonical dot (16 lanes by index mod 16, fused multiply-add,
// fixed tree) of x and row r widened to float32.
struct DenseView {
  const void* data;  // any alignment
  DenseType type;
  int n_rows;
  int n_columns;  // a multiple of DenseBlockColumns(type)
};

// Widens one row to float32; the kernel widen_row does the same, fast.
// out: float [w.n_columns].  REQUIRES: 0 <= row < w.n_rows.
void DenseRow(const DenseView& w, int row, float* out);

// The same for columns [column_begin, column_end), both multiples of
// DenseBlockColumns(w.type).  out: float [column_end - column_begin].
void DenseColumns(const DenseView& w, int row, int column_begin, int column_end,
                  float* out);

// The int8 form of a dense matrix.
//
// Per row: d = absmax / 127 (float32), q = clamp(round_half_even(w * (127 /
// absmax)), -127, 127), both 0 for a row of zeros (or one whose absmax is not
// finite: the loader refuses those).
// logits[r] = (float)(sum_k q[r][k] * x.q[k]) / x.s * d[r], in that order; the
// int32 sum rounds to float32 half to even.
//
// Packed in panels of 16 rows, each a run of 64-byte blocks, one per 4 columns:
// byte 4*r + j of block b is row r, column 4*b + j. Rows beyond n_rows hold 0.
inline constexpr int kHeadPanelRows = 16;
struct Int8View {
  const int8_t* packed;    // Int8PackedBytes(n_rows, n_columns), 64-aligned
  const float* row_scale;  // d, [n_rows]
  int n_rows;
  int n_columns;  // a multiple of 16, below 2^17
};

inline constexpr int HeadPanelCount(int n_rows) {
  return (n_rows + kHeadPanelRows - 1) / kHeadPanelRows;
}
inline constexpr size_t HeadPanelBytes(int n_columns) {
  return static_cast<size_t>(n_columns) * kHeadPanelRows;
}
inline constexpr size_t Int8PackedBytes(int n_rows, int n_columns) {
  return HeadPanelCount(n_rows) * HeadPanelBytes(n_columns);
}

// Puts one quantised row where it belongs in its panel.
//
// q: int8 [n_columns].   r: the row's index in the panel, 0..15.
// panel: HeadPanelBytes(n_columns) bytes.  REQUIRES: n_columns % 4 == 0.
void PlaceInt8Row(const int8_t* q, int n_columns, int r, int8_t* panel);

}  // namespace tern

#endif  // KERNELS_HEAD_H_
