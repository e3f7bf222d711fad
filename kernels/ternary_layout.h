#ifndef KERNELS_TERNARY_LAYOUT_H_
#define KERNELS_TERNARY_LAYOUT_H_

#include <cstddef>
#include <cstdint>

#include "absl/strings/string_view.h"

namespace tern {

// How ternary matrices are packed on CPUs (docs/ternary_layout.md): what of a
// matrix is read, and how fast. Every packing gives the same results, bit for
// bit.
//
// A matrix W[n_out, n_in] of weights -1, 0, +1 is cut into panels of 32 rows,
// and a panel into blocks of columns, in column order. n_in must be a multiple
// of 16. Rows beyond n_out in the last panel, and columns beyond n_in in the
// last block, hold weight 0.
enum class TernaryPacking {
  // 2 bits a weight. Blocks of 128 bytes, one per 16 columns: two half-blocks
  // of 64 bytes, rows 0..15 of the panel, then rows 16..31. Byte 4*r + j of a
  // half-block holds row r and the four columns 4*f + j, f = 0..3, of the
  // block, as codes w + 1 in {0, 1, 2}, field f in bits 2f+1 : 2f. Code 3 never
  // occurs.
  k2Bit,

  // 5 bits for 3 weights, to be unpacked. Blocks of 320 bytes, one per 48
  // columns, are five lines of eight 64-bit words, little-endian. Words i of
  // all five lines are one string of 320 bits, lowest first: eight runs of
  // eight 5-bit codes. Code b of run n in string i is that of row 16 * (n % 2)
  // + (8*i + b) / 4 of the panel and columns 12 * (n / 2) + 4*f + b % 4 of the
  // block, f = 0..2: c0 + 3 * c1 + 9 * c2 in [0, 26], where cf is w + 1.
  kBase3,

  // 5 bits for 3 weights, to be looked up. Blocks of 320 bytes, one per 48
  // columns, are two half-blocks of 160 bytes, eight groups of three columns
  // each. Of the group of columns 3*g .. 3*g + 2, v = w0 + 3 * w1 + 9 * w2 in
  // [-13, 13]; it has the sign v < 0 and the index |v|. Byte r of the first 32
  // bytes of a half-block holds the signs of row r: group i of the half in bit
  // 7 - i. Of the four runs of 32 bytes that follow, byte r of run p holds the
  // index of group 2*p in its low and of group 2*p + 1 in its high four bits.
  kTl2,

  // 2 bits a weight, to be looked up. Blocks of 128 bytes, one per 16 columns,
  // are four runs of 32 bytes. Byte r of run p holds the index of the pair of
  // columns 4*p, 4*p + 1 of row r in its low and of columns 4*p + 2, 4*p + 3 in
  // its high four bits: c0 + 3 * c1 in [0, 8], where ci is w + 1.
  kTl1,
};
inline constexpr int kTernaryPackingCount = 4;
inline constexpr TernaryPacking kAllTernaryPackings[kTernaryPackingCount] = {
    TernaryPacking::k2Bit, TernaryPacking::kBase3, TernaryPacking::kTl2,
    TernaryPacking::kTl1};

// "2bit", "base3", "tl2", "tl1".
absl::string_view TernaryPackingName(TernaryPacking packing);

// Writes the packing of that name to *packing; false if there is none.
bool ParseTernaryPacking(absl::string_view name, TernaryPacking* packing);

inline constexpr int kPanelRows = 32;
// Blocks of k2Bit and kTl1.
inline constexpr int kBlockColumns = 16;
inline constexpr int kBlockBytes = 128;
// Blocks of kBase3 and kTl2.
inline constexpr int kGroupBlockColumns = 48;
inline constexpr int kGroupBlockBytes = 320;

inline constexpr int BlockColumns(TernaryPacking packing) {
  return packing == TernaryPacking::kBase3 || packing == TernaryPacking::kTl2
             ? kGroupBlockColumns
             : kBlockColumns;
}
inline constexpr int BlockBytes(TernaryPacking packing) {
  return BlockColumns(packing) == kBlockColumns ? kBlockBytes
                                                : kGroupBlockBytes;
}
// Alignment that packed matrices need; the sizes below are multiples of it.
inline constexpr size_t kPackedAlignment = 64;

inline constexpr int PanelCount(int n_out) {
  return (n_out + kPanelRows - 1) / kPanelRows;
}
inline constexpr size_t PanelBytes(
    int n_in, TernaryPacking packing = TernaryPacking::k2Bit) {
  return static_cast<size_t>((n_in + BlockColumns(packing) - 1) /
                             BlockColumns(packing)) *
         BlockBytes(packing);
}
inline constexpr size_t PackedBytes(
    int n_out, int n_in, TernaryPacking packing = TernaryPacking::k2Bit) {
  return PanelCount(n_out) * PanelBytes(n_in, packing);
}

// A packed matrix. Borrowed: the bytes outlive the view.
struct TernaryView {
  const uint8_t* packed;  // PackedBytes(n_out, n_in, packing), 64-byte aligned
  int n_out;
  int n_in;     // a multiple of 16, below 2^17
  float scale;  // s_w: the weights are scale * {-1, 0, +1}
  TernaryPacking packing = TernaryPacking::k2Bit;
};

// Packs one panel.
//
// codes: row-major [n_rows, n_in], each 0, 1 or 2. 1 <= n_rows <= 32; missing
//        rows are filled with code 1.
// panel: PanelBytes(n_in, packing) bytes.
// REQUIRES: n_in % 16 == 0.
void PackTernaryPanel(const uint8_t* codes, int n_rows, int n_in,
                      uint8_t* panel,
                      TernaryPacking packing = TernaryPacking::k2Bit);

// The weight at (row, column) of a packed matrix: -1, 0 or +1. Slow; for tests
// and for the reference kernels.
int TernaryWeightAt(const TernaryView& w, int row, int column);

}  // namespace tern

#endif  // KERNELS_TERNARY_LAYOUT_H_
