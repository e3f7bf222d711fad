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
// Stored as q + 128 = 16 * h + l in two planes of four bits each, of which the
// upper one alone bounds every logit (docs/ternary_layout.md, "The int8 head").
// Both are cut into panels of 16 rows; rows beyond n_rows hold q = 0. A byte
// has column 8 b + j in its low four bits and 8 b + 4 + j in its high ones:
//
//   upper plane   byte 64 b + 4 r + j of a panel:  h of row r, 0..15
//   lower plane   byte 16 b + 4 r + j of a group:  l of row r, 0..3
//
// The four groups of a panel follow each other, so that the lower halves of
// four rows are read without those of their neighbours.
inline constexpr int kHeadPanelRows = 16;
inline constexpr int kHeadGroupRows = 4;
struct Int8View {
  const uint8_t* upper;     // Int8PlaneBytes(n_rows, n_columns), 64-aligned
  const uint8_t* lower;     // the same
  const float* row_scale;   // d, [panels * 16], 0 beyond n_rows
  const float* lower_norm;  // [panels * 16], see PlaceInt8Row()
  int n_rows;
  int n_columns;  // a multiple of 16, below 2^17
};

inline constexpr int HeadPanelCount(int n_rows) {
  return (n_rows + kHeadPanelRows - 1) / kHeadPanelRows;
}
inline constexpr int HeadGroupCount(int n_rows) {
  return (n_rows + kHeadGroupRows - 1) / kHeadGroupRows;
}
// Bytes of a panel, or group, in one plane.
inline constexpr size_t HeadPanelBytes(int n_columns) {
  return static_cast<size_t>(n_columns) * (kHeadPanelRows / 2);
}
inline constexpr size_t HeadGroupBytes(int n_columns) {
  return static_cast<size_t>(n_columns) * (kHeadGroupRows / 2);
}
inline constexpr size_t Int8PlaneBytes(int n_rows, int n_columns) {
  return HeadPanelCount(n_rows) * HeadPanelBytes(n_columns);
}

// Puts one quantised row where it belongs in its panel and returns its
// lower_norm: NormAbove() of l - 7.5.
//
// q: int8 [n_columns].   r: the row's index in the panel, 0..15.
// upper, lower: the panel in each plane, HeadPanelBytes(n_columns) bytes.
// REQUIRES: n_columns % 8 == 0.
float PlaceInt8Row(const int8_t* q, int n_columns, int r, uint8_t* upper,
                   uint8_t* lower);

// The Euclidean norm of a vector whose squares sum to `squares`, rounded up so
// far that the float32 product of two such norms is not below the product of
// the norms themselves.
float NormAbove(int64_t squares);

// Most columns for which bounds fit int32.
inline constexpr int kHeadBoundColumnsMax = 1 << 16;

}  // namespace tern

#endif  // KERNELS_HEAD_H_
