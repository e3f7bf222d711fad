#include "kernels/ternary_layout.h"

#include <cstring>

#include "util/logging.h"

namespace tern {
namespace {

constexpr int kHalfBlockBytes = kBlockBytes / 2;
constexpr int kHalfPanelRows = kPanelRows / 2;

// Where the code of (row of the panel, column) lies within the panel.
struct CodePlace {
  size_t byte;
  int shift;
};

CodePlace PlaceOf(int panel_row, int column) {
  const int field = column % kBlockColumns / 4;
  return {
      static_cast<size_t>(column / kBlockColumns) * kBlockBytes +
          static_cast<size_t>(panel_row / kHalfPanelRows) * kHalfBlockBytes +
          static_cast<size_t>(panel_row % kHalfPanelRows) * 4 + column % 4,
      2 * field};
}

}  // namespace

void PackTernaryPanel(const uint8_t* codes, int n_rows, int n_in,
                      uint8_t* panel) {
  DCHECK(n_in % kBlockColumns == 0);
  DCHECK(n_rows >= 1 && n_rows <= kPanelRows);
  // 0x55 is code 1 in all four fields, which the rows that exist replace.
  std::memset(panel, 0x55, PanelBytes(n_in));
  for (int row = 0; row < n_rows; ++row) {
    const uint8_t* row_codes = codes + static_cast<size_t>(row) * n_in;
    for (int column = 0; column < n_in; column += kBlockColumns) {
      uint8_t* quad = panel + PlaceOf(row, column).byte;
      for (int j = 0; j < 4; ++j) {
        const uint8_t* c = row_codes + column + j;
        quad[j] = c[0] | c[4] << 2 | c[8] << 4 | c[12] << 6;
      }
    }
  }
}

int TernaryWeightAt(const TernaryView& w, int row, int column) {
  const uint8_t* panel = w.packed + row / kPanelRows * PanelBytes(w.n_in);
  const CodePlace place = PlaceOf(row % kPanelRows, column);
  return (panel[place.byte] >> place.shift & 3) - 1;
}

}  // namespace tern
